"""Swahili. Classes are named by their subject prefix: a (animate), u, li, i; plurals vi, ya, zi."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name", """
    anna: Anna; maria: Maria; sara: Sara; fatima: Fatuma; elena: Elena; leila: Leila; amina: Amina; olga: Olga
    julia: Julia; zeynep: Zainabu; priya: Priya; meiling: Meiling
    ali: Ali; omar: Omari; ivan: Ivan; david: Daudi; daniel: Danieli; hassan: Hassan; viktor: Viktor
    paul: Paulo; ravi: Ravi; mehmet: Mehmet; juma: Juma; nikos: Nikos"""),
  "city": table("name", """
    london: London; paris: Paris; berlin: Berlin; hamburg: Hamburg; madrid: Madrid; barcelona: Barcelona
    rome: Roma; athens: Athens; sofia: Sofia; moscow: Moscow; istanbul: Istanbul; ankara: Ankara; cairo: Cairo
    nairobi: Nairobi; delhi: Delhi; mumbai: Mumbai; karachi: Karachi; beijing: Beijing; shanghai: Shanghai
    bangkok: Bangkok; hanoi: Hanoi; tokyo: Tokyo; new_york: New York"""),
  "country": table("name", """
    uk: Uingereza; france: Ufaransa; germany: Ujerumani; spain: Uhispania; italy: Italia; greece: Ugiriki
    turkey: Uturuki; bulgaria: Bulgaria; russia: Urusi; egypt: Misri; kenya: Kenya; india: India
    pakistan: Pakistan; china: China; thailand: Thailand; vietnam: Vietnam; japan: Japani; usa: Marekani"""),
  "job": table("name", """
    teacher: mwalimu; doctor: daktari; cook: mpishi; engineer: mhandisi; scientist: mwanasayansi
    actor: mwigizaji; farmer: mkulima; lawyer: wakili; seller: muuzaji wa duka; librarian: mkutubi"""),
  "place": table("at", """
    school: shuleni; hospital: hospitalini; restaurant: mkahawani; factory: kiwandani
    university: katika [chuo kikuu]; theatre: katika [jumba la maigizo]; farm: shambani; office: ofisini
    shop: dukani; library: katika [maktaba]"""),
  "animal": table("class name", """
    cat: a | paka; dog: a | mbwa; horse: a | farasi; rabbit: a | sungura; parrot: a | kasuku; goat: a | mbuzi
    cow: a | ng'ombe"""),
  "colour": table("a u li i", """
    black: mweusi | mweusi | jeusi | nyeusi
    white: mweupe | mweupe | jeupe | nyeupe
    brown: wa rangi ya [kahawia] | wa rangi ya [kahawia] | la rangi ya [kahawia] | ya rangi ya [kahawia]
    grey: wa rangi ya [kijivu] | wa rangi ya [kijivu] | la rangi ya [kijivu] | ya rangi ya [kijivu]
    red: mwekundu | mwekundu | jekundu | nyekundu
    blue: wa rangi ya [buluu] | wa rangi ya [buluu] | la rangi ya [buluu] | ya rangi ya [buluu]
    green: wa rangi ya [kijani] | wa rangi ya [kijani] | la rangi ya [kijani] | ya rangi ya [kijani]"""),
  "thing": table("class name", """
    car: li | gari; bicycle: i | baiskeli; bag: u | mkoba; house: i | nyumba; coat: li | koti
    umbrella: u | mwavuli; hat: i | kofia"""),
  "goods": table("class many", """
    book: vi | vitabu; apple: ya | matufaha; egg: ya | mayai; ticket: zi | tiketi; pen: zi | kalamu
    flower: ya | maua; cup: vi | vikombe"""),
  "food": table("name", """
    tea: chai; coffee: kahawa; bread: mkate; rice: wali; fish: samaki; milk: maziwa; cheese: jibini
    honey: asali"""),
  "tongue": table("name", """
    english: Kiingereza; french: Kifaransa; german: Kijerumani; spanish: Kihispania; russian: Kirusi
    arabic: Kiarabu; hindi: Kihindi; turkish: Kituruki; chinese: Kichina; swahili: Kiswahili
    greek: Kigiriki"""),
  "day": table("on", """
    monday: siku ya [Jumatatu]; tuesday: siku ya [Jumanne]; wednesday: siku ya [Jumatano]
    thursday: siku ya [Alhamisi]; friday: siku ya [Ijumaa]; saturday: siku ya [Jumamosi]
    sunday: siku ya [Jumapili]"""),
  "weather": table("is", """
    hot: kuna joto; cold: kuna baridi; rain: mvua inanyesha; snow: theluji inaanguka; sun: jua linawaka
    wind: upepo unavuma"""),
  "sight": table("class many", """
    museum: ya | majumba ya makumbusho; park: zi | bustani; bridge: ya | madaraja; market: ya | masoko
    hotel: zi | hoteli; school: zi | shule"""),
  "action": table("does", """
    read: anasoma kitabu; cook: anapika chakula; swim: anaogelea; sing: anaimba; dance: anacheza dansi
    football: anacheza soka; music: anasikiliza muziki; letters: anaandika barua"""),
  "time": table("in", "morning: asubuhi; afternoon: alasiri; evening: jioni"),
  "kin": table("m f", """
    parent: baba | mama; child: mtoto wa kiume | binti; sibling: kaka | dada; friend: rafiki | rafiki
    neighbour: jirani | jirani"""),
  "spot": table("in", """
    garden: bustanini; house: ndani ya nyumba; kitchen: jikoni; table: chini ya meza
    door: karibu na mlango"""),
  "number": table("vi ya zi", """
    3: vitatu | matatu | tatu; 4: vinne | manne | nne; 5: vitano | matano | tano; 6: sita | sita | sita
    7: saba | saba | saba; 8: vinane | manane | nane; 9: tisa | tisa | tisa"""),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} anaishi {city}.", "Nyumba ya {person} iko {city}."),
  "born": ("{person} alizaliwa {city}.", "Mahali alipozaliwa {person} ni {city}."),
  "year": ("{person} alizaliwa mwaka wa {year}.", "Mwaka wa kuzaliwa wa {person} ni {year}."),
  "age": ("{person} ana umri wa miaka {age}.", "Umri wa {person} ni miaka {age}."),
  "job": ("{person} ni {job}.", "{person} anafanya kazi kama {job}."),
  "works": ("{person} anafanya kazi {place}.", "Kila siku {person} anafanya kazi {place}."),
  "pet": ("{person} ana {animal} {colour/animal}.", "{animal} wa {person} ni {colour/animal}."),
  "owns": ("{person} ana {thing} {colour/thing}.", "{thing} {thing:ya|la|wa} {person} ni {colour/thing}."),
  "buys": ("{person} ananunua {goods} {number}.", "{person} ananunua {goods} {number/goods} sokoni."),
  "likes": ("{person} anapenda {food}.", "{person} anapenda sana {food}."),
  "speaks": ("{person} anazungumza {tongue}.", "Nyumbani {person} anazungumza {tongue}."),
  "travels": ("{person} anakwenda {city} {day}.", "{day} {person} anasafiri kwenda {city}."),
  "kin": ("{person} ni {kin/person} wa {other}.", "{kin/person} wa {other} anaitwa {person}."),
  "does": ("{person} {action} {time}.", "{time} {person} {action}."),
  "country": ("{city} ni jiji nchini {country}.", "Jiji la {city} liko nchini {country}."),
  "capital": ("{city} ni mji mkuu wa {country}.", "Mji mkuu wa {country} ni {city}."),
  "weather": ("{day} {weather} mjini {city}.", "Mjini {city} {weather} {day}."),
  "sights": ("Mjini {city} kuna {sight} {number}.", "Jiji la {city} lina {sight} {number/sight}."),
  "sleeps": ("{animal} {colour/animal} amelala {spot}.", "{animal} aliyelala {spot} ni {colour/animal}."),
}

QUESTIONS = {
  ("lives", "city"): "{person} anaishi wapi?",
  ("lives", "person"): "Nani anaishi {city}?",
  ("born", "city"): "{person} alizaliwa wapi?",
  ("year", "year"): "{person} alizaliwa mwaka gani?",
  ("age", "age"): "{person} ana umri wa miaka mingapi?",
  ("job", "job"): "{person} anafanya kazi gani?",
  ("works", "place"): "{person} anafanya kazi wapi?",
  ("pet", "animal"): "{person} ana mnyama gani?",
  ("buys", "number"): "{person} ananunua {goods} {goods:vingapi|mangapi|ngapi}?",
  ("likes", "food"): "{person} anapenda nini?",
  ("speaks", "tongue"): "{person} anazungumza lugha gani?",
  ("travels", "city"): "{person} anakwenda wapi {day}?",
  ("travels", "day"): "{person} anakwenda {city} lini?",
  ("kin", "person"): "{kin/person} wa {other} ni nani?",
  ("country", "country"): "Jiji la {city} liko katika nchi gani?",
  ("capital", "city"): "Mji mkuu wa {country} ni upi?",
  ("sights", "number"): "Kuna {sight} {sight:mangapi|ngapi} mjini {city}?",
  ("sleeps", "spot"): "{animal} {colour/animal} amelala wapi?",
}
