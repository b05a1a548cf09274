"""Bulgarian."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name", """
    anna: Анна; maria: Мария; sara: Сара; fatima: Фатима; elena: Елена; leila: Лейла; amina: Амина; olga: Олга
    julia: Юлия; zeynep: Зейнеп; priya: Прия; meiling: Мейлин
    ali: Али; omar: Омар; ivan: Иван; david: Давид; daniel: Даниел; hassan: Хасан; viktor: Виктор; paul: Павел
    ravi: Рави; mehmet: Мехмет; juma: Джума; nikos: Никос"""),
  "city": table("name", """
    london: Лондон; paris: Париж; berlin: Берлин; hamburg: Хамбург; madrid: Мадрид; barcelona: Барселона
    rome: Рим; athens: Атина; sofia: София; moscow: Москва; istanbul: Истанбул; ankara: Анкара; cairo: Кайро
    nairobi: Найроби; delhi: Делхи; mumbai: Мумбай; karachi: Карачи; beijing: Пекин; shanghai: Шанхай
    bangkok: Банкок; hanoi: Ханой; tokyo: Токио; new_york: Ню Йорк"""),
  "country": table("in of", """
    uk: във [Великобритания] | на [Великобритания]; france: във [Франция] | на [Франция]
    germany: в [Германия] | на [Германия]; spain: в [Испания] | на [Испания]; italy: в [Италия] | на [Италия]
    greece: в [Гърция] | на [Гърция]; turkey: в [Турция] | на [Турция]
    bulgaria: в [България] | на [България]; russia: в [Русия] | на [Русия]
    egypt: в [Египет] | на [Египет]; kenya: в [Кения] | на [Кения]
    india: в [Индия] | на [Индия]; pakistan: в [Пакистан] | на [Пакистан]; china: в [Китай] | на [Китай]
    thailand: в [Тайланд] | на [Тайланд]; vietnam: във [Виетнам] | на [Виетнам]
    japan: в [Япония] | на [Япония]; usa: в [САЩ] | на [САЩ]"""),
  "job": table("m f", """
    teacher: учител | учителка; doctor: лекар | лекарка; cook: готвач | готвачка; engineer: инженер | инженер
    scientist: учен | учен; actor: актьор | актриса; farmer: фермер | фермерка; lawyer: адвокат | адвокатка
    seller: продавач | продавачка; librarian: библиотекар | библиотекарка"""),
  "place": table("in", """
    school: в [училище]; hospital: в [болница]; restaurant: в [ресторант]; factory: във [фабрика]
    university: в [университет]; theatre: в [театър]; farm: във [ферма]; office: в [офис]; shop: в [магазин]
    library: в [библиотека]"""),
  # "the" is the form with the article; a masculine one is the full form, for the subject of the sentence.
  "animal": table("class name the", """
    cat: f | котка | котката; dog: n | куче | кучето; horse: m | кон | конят; rabbit: m | заек | заекът
    parrot: m | папагал | папагалът; goat: f | коза | козата; cow: f | крава | кравата"""),
  "colour": table("m f n the_m the_f the_n", """
    black: черен | черна | черно | черният | черната | черното
    white: бял | бяла | бяло | белият | бялата | бялото
    brown: кафяв | кафява | кафяво | кафявият | кафявата | кафявото
    grey: сив | сива | сиво | сивият | сивата | сивото
    red: червен | червена | червено | червеният | червената | червеното
    blue: син | синя | синьо | синият | синята | синьото
    green: зелен | зелена | зелено | зеленият | зелената | зеленото"""),
  "thing": table("class name the", """
    car: f | кола | колата; bicycle: m | велосипед | велосипедът; bag: f | чанта | чантата
    house: f | къща | къщата; coat: n | палто | палтото; umbrella: m | чадър | чадърът
    hat: f | шапка | шапката"""),
  # As they stand after a number: masculine nouns in the count form.
  "goods": table("count", """
    book: книги; apple: ябълки; egg: яйца; ticket: билета; pen: химикалки; flower: цветя; cup: чаши"""),
  "food": table("name", """
    tea: чай; coffee: кафе; bread: хляб; rice: ориз; fish: риба; milk: мляко; cheese: сирене; honey: мед"""),
  "tongue": table("name", """
    english: английски; french: френски; german: немски; spanish: испански; russian: руски; arabic: арабски
    hindi: хинди; turkish: турски; chinese: китайски; swahili: суахили; greek: гръцки"""),
  "day": table("on", """
    monday: в [понеделник]; tuesday: във [вторник]; wednesday: в [сряда]; thursday: в [четвъртък]
    friday: в [петък]; saturday: в [събота]; sunday: в [неделя]"""),
  "weather": table("is", """
    hot: е горещо; cold: е студено; rain: вали дъжд; snow: вали сняг; sun: грее слънце; wind: духа вятър"""),
  "sight": table("count", """
    museum: музея; park: парка; bridge: моста; market: пазара; hotel: хотела; school: училища"""),
  "action": table("does", """
    read: чете книга; cook: готви; swim: плува; sing: пее; dance: танцува; football: играе футбол
    music: слуша музика; letters: пише писма"""),
  "time": table("in", "morning: сутрин; afternoon: следобед; evening: вечер"),
  "kin": table("m f the_m the_f", """
    parent: баща | майка | бащата | майката; child: син | дъщеря | синът | дъщерята
    sibling: брат | сестра | братът | сестрата; friend: приятел | приятелка | приятелят | приятелката
    neighbour: съсед | съседка | съседът | съседката"""),
  "spot": table("in", """
    garden: в градината; house: в къщата; kitchen: в кухнята; table: под масата; door: до вратата"""),
  "number": table("word", "3: три; 4: четири; 5: пет; 6: шест; 7: седем; 8: осем; 9: девет"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} живее в {city}.", "Домът на {person} е в {city}."),
  "born": ("{person} е {person:роден|родена} в {city}.", "{person} е родом от {city}."),
  "year": ("{person} е {person:роден|родена} през {year} година.", "Годината на раждане на {person} е {year}."),
  "age": ("{person} е на {age} години.", "Възрастта на {person} е {age} години."),
  "job": ("{person} е {job/person}.", "{person} работи като {job/person}."),
  "works": ("{person} работи {place}.", "Всеки ден {person} ходи на работа {place}."),
  "pet": ("{person} има {colour/animal} {animal}.", "{animal.the} на {person} е {colour/animal}."),
  "owns": ("{person} има {colour/thing} {thing}.", "{thing.the} на {person} е {colour/thing}."),
  "buys": ("{person} купува {number} {goods}.", "{person} купува {number.word} {goods} от пазара."),
  "likes": ("{person} обича {food}.", "{person} много обича {food}."),
  "speaks": ("{person} говори {tongue}.", "Вкъщи {person} говори {tongue}."),
  "travels": ("{person} пътува за {city} {day}.", "{day} {person} заминава за {city}."),
  "kin": ("{person} е {kin/person} на {other}.", "{kin.the/person} на {other} се казва {person}."),
  "does": ("{person} {action} {time}.", "{time} {person} {action}."),
  "country": ("{city} е град {country}.", "Град {city} се намира {country}."),
  "capital": ("{city} е столицата {country.of}.", "Столицата {country.of} е {city}."),
  "weather": ("{day} в {city} {weather}.", "В {city} {day} {weather}."),
  "sights": ("В {city} има {number} {sight}.", "В град {city} има {number.word} {sight}."),
  "sleeps": ("{colour.the/animal} {animal} спи {spot}.", "{spot} спи {colour/animal} {animal}."),
}

QUESTIONS = {
  ("lives", "city"): "Къде живее {person}?",
  ("lives", "person"): "Кой живее в {city}?",
  ("born", "city"): "Къде е {person:роден|родена} {person}?",
  ("year", "year"): "През коя година е {person:роден|родена} {person}?",
  ("age", "age"): "На колко години е {person}?",
  ("job", "job"): "Каква е професията на {person}?",
  ("works", "place"): "Къде работи {person}?",
  ("pet", "animal"): "Какво животно има {person}?",
  ("buys", "number"): "Колко {goods} купува {person}?",
  ("likes", "food"): "Какво обича {person}?",
  ("speaks", "tongue"): "На какъв език говори {person}?",
  ("travels", "city"): "Закъде пътува {person} {day}?",
  ("travels", "day"): "Кога пътува {person} за {city}?",
  ("kin", "person"): "Как се казва {kin.the/person} на {other}?",
  ("country", "country"): "В коя държава се намира {city}?",
  ("capital", "city"): "Кой град е столица {country.of}?",
  ("sights", "number"): "Колко {sight} има в {city}?",
  ("sleeps", "spot"): "Къде спи {colour.the/animal} {animal}?",
}
