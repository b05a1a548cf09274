"""Turkish. Suffixes of case and the copula stand outside the brackets, possessive suffixes inside."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name gen", """
    anna: Anna | [Anna]'nın; maria: Maria | [Maria]'nın; sara: Sara | [Sara]'nın; fatima: Fatma | [Fatma]'nın
    elena: Elena | [Elena]'nın; leila: Leyla | [Leyla]'nın; amina: Emine | [Emine]'nin
    olga: Olga | [Olga]'nın; julia: Julia | [Julia]'nın; zeynep: Zeynep | [Zeynep]'in
    priya: Priya | [Priya]'nın; meiling: Meiling | [Meiling]'in
    ali: Ali | [Ali]'nin; omar: Ömer | [Ömer]'in; ivan: İvan | [İvan]'ın; david: David | [David]'in
    daniel: Daniel | [Daniel]'in; hassan: Hasan | [Hasan]'ın; viktor: Viktor | [Viktor]'un
    paul: Paul | [Paul]'un; ravi: Ravi | [Ravi]'nin; mehmet: Mehmet | [Mehmet]'in; juma: Juma | [Juma]'nın
    nikos: Nikos | [Nikos]'un"""),
  "city": table("name in to is", """
    london: Londra | [Londra]'da | [Londra]'ya | [Londra]'dır
    paris: Paris | [Paris]'te | [Paris]'e | [Paris]'tir
    berlin: Berlin | [Berlin]'de | [Berlin]'e | [Berlin]'dir
    hamburg: Hamburg | [Hamburg]'da | [Hamburg]'a | [Hamburg]'dur
    madrid: Madrid | [Madrid]'de | [Madrid]'e | [Madrid]'dir
    barcelona: Barselona | [Barselona]'da | [Barselona]'ya | [Barselona]'dır
    rome: Roma | [Roma]'da | [Roma]'ya | [Roma]'dır
    athens: Atina | [Atina]'da | [Atina]'ya | [Atina]'dır
    sofia: Sofya | [Sofya]'da | [Sofya]'ya | [Sofya]'dır
    moscow: Moskova | [Moskova]'da | [Moskova]'ya | [Moskova]'dır
    istanbul: İstanbul | [İstanbul]'da | [İstanbul]'a | [İstanbul]'dur
    ankara: Ankara | [Ankara]'da | [Ankara]'ya | [Ankara]'dır
    cairo: Kahire | [Kahire]'de | [Kahire]'ye | [Kahire]'dir
    nairobi: Nairobi | [Nairobi]'de | [Nairobi]'ye | [Nairobi]'dir
    delhi: Delhi | [Delhi]'de | [Delhi]'ye | [Delhi]'dir
    mumbai: Mumbai | [Mumbai]'de | [Mumbai]'ye | [Mumbai]'dir
    karachi: Karaçi | [Karaçi]'de | [Karaçi]'ye | [Karaçi]'dir
    beijing: Pekin | [Pekin]'de | [Pekin]'e | [Pekin]'dir
    shanghai: Şanghay | [Şanghay]'da | [Şanghay]'a | [Şanghay]'dır
    bangkok: Bangkok | [Bangkok]'ta | [Bangkok]'a | [Bangkok]'tur
    hanoi: Hanoi | [Hanoi]'de | [Hanoi]'ye | [Hanoi]'dir
    tokyo: Tokyo | [Tokyo]'da | [Tokyo]'ya | [Tokyo]'dur
    new_york: New York | [New York]'ta | [New York]'a | [New York]'tur"""),
  "country": table("in gen", """
    uk: [İngiltere]'de | [İngiltere]'nin; france: [Fransa]'da | [Fransa]'nın
    germany: [Almanya]'da | [Almanya]'nın; spain: [İspanya]'da | [İspanya]'nın
    italy: [İtalya]'da | [İtalya]'nın; greece: [Yunanistan]'da | [Yunanistan]'ın
    turkey: [Türkiye]'de | [Türkiye]'nin; bulgaria: [Bulgaristan]'da | [Bulgaristan]'ın
    russia: [Rusya]'da | [Rusya]'nın; egypt: [Mısır]'da | [Mısır]'ın; kenya: [Kenya]'da | [Kenya]'nın
    india: [Hindistan]'da | [Hindistan]'ın; pakistan: [Pakistan]'da | [Pakistan]'ın
    china: [Çin]'de | [Çin]'in; thailand: [Tayland]'da | [Tayland]'ın; vietnam: [Vietnam]'da | [Vietnam]'ın
    japan: [Japonya]'da | [Japonya]'nın; usa: [ABD]'de | [ABD]'nin"""),
  "job": table("name is", """
    teacher: öğretmen | [öğretmen]dir; doctor: doktor | [doktor]dur; cook: aşçı | [aşçı]dır
    engineer: mühendis | [mühendis]tir; scientist: bilim insanı | [bilim insanı]dır
    actor: oyuncu | [oyuncu]dur; farmer: çiftçi | [çiftçi]dir; lawyer: avukat | [avukat]tır
    seller: satış görevlisi | [satış görevlisi]dir; librarian: kütüphaneci | [kütüphaneci]dir"""),
  "place": table("at", """
    school: [okul]da; hospital: [hastane]de; restaurant: [restoran]da; factory: [fabrika]da
    university: [üniversite]de; theatre: [tiyatro]da; farm: [çiftlik]te; office: [ofis]te
    shop: [dükkân]da; library: [kütüphane]de"""),
  "animal": table("name poss", """
    cat: kedi | kedisi; dog: köpek | köpeği; horse: at | atı; rabbit: tavşan | tavşanı
    parrot: papağan | papağanı; goat: keçi | keçisi; cow: inek | ineği"""),
  "colour": table("name", """
    black: siyah; white: beyaz; brown: kahverengi; grey: gri; red: kırmızı; blue: mavi; green: yeşil"""),
  "thing": table("poss", """
    car: arabası; bicycle: bisikleti; bag: çantası; house: evi; coat: paltosu; umbrella: şemsiyesi
    hat: şapkası"""),
  "goods": table("name", """
    book: kitap; apple: elma; egg: yumurta; ticket: bilet; pen: kalem; flower: çiçek; cup: fincan"""),
  "food": table("acc", """
    tea: çayı; coffee: kahveyi; bread: ekmeği; rice: pilavı; fish: balığı; milk: sütü; cheese: peyniri
    honey: balı"""),
  "tongue": table("name", """
    english: İngilizce; french: Fransızca; german: Almanca; spanish: İspanyolca; russian: Rusça
    arabic: Arapça; hindi: Hintçe; turkish: Türkçe; chinese: Çince; swahili: Svahilice; greek: Yunanca"""),
  "day": table("on", """
    monday: [pazartesi] günü; tuesday: [salı] günü; wednesday: [çarşamba] günü; thursday: [perşembe] günü
    friday: [cuma] günü; saturday: [cumartesi] günü; sunday: [pazar] günü"""),
  "weather": table("is", """
    hot: hava sıcak; cold: hava soğuk; rain: yağmur yağıyor; snow: kar yağıyor; sun: hava güneşli
    wind: hava rüzgârlı"""),
  "sight": table("name", "museum: müze; park: park; bridge: köprü; market: pazar; hotel: otel; school: okul"),
  "action": table("does", """
    read: kitap okuyor; cook: yemek pişiriyor; swim: yüzüyor; sing: şarkı söylüyor; dance: dans ediyor
    football: futbol oynuyor; music: müzik dinliyor; letters: mektup yazıyor"""),
  "time": table("in", "morning: sabahları; afternoon: öğleden sonraları; evening: akşamları"),
  # With the suffix of the possessor; "is" adds the copula, "gen" the genitive.
  "kin": table("m f is_m is_f gen_m gen_f", """
    parent: babası | annesi | [babası]dır | [annesi]dir | [babası]nın | [annesi]nin
    child: oğlu | kızı | [oğlu]dur | [kızı]dır | [oğlu]nun | [kızı]nın
    sibling: erkek kardeşi | kız kardeşi | [erkek kardeşi]dir | [kız kardeşi]dir \
      | [erkek kardeşi]nin | [kız kardeşi]nin
    friend: arkadaşı | arkadaşı | [arkadaşı]dır | [arkadaşı]dır | [arkadaşı]nın | [arkadaşı]nın
    neighbour: komşusu | komşusu | [komşusu]dur | [komşusu]dur | [komşusu]nun | [komşusu]nun"""),
  "spot": table("in", """
    garden: bahçede; house: evde; kitchen: mutfakta; table: masanın altında; door: kapının yanında"""),
  "number": table("word", "3: üç; 4: dört; 5: beş; 6: altı; 7: yedi; 8: sekiz; 9: dokuz"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} {city.in} yaşıyor.", "{person.gen} evi {city.in}."),
  "born": ("{person} {city.in} doğdu.", "{person.gen} doğum yeri {city}."),
  "year": ("{person} {year} yılında doğdu.", "{person.gen} doğum yılı {year}."),
  "age": ("{person} {age} yaşında.", "{person.gen} yaşı {age}."),
  "job": ("{person} {job.is}.", "{person} {job} olarak çalışıyor."),
  "works": ("{person} bir {place} çalışıyor.", "{person} her gün bir {place} çalışıyor."),
  "pet": ("{person.gen} {colour} bir {animal.poss} var.", "{person.gen} {animal.poss} {colour}."),
  "owns": ("{person.gen} {colour} bir {thing} var.", "{person.gen} {thing} {colour}."),
  "buys": ("{person} {number} {goods} alıyor.", "{person} pazardan {number.word} {goods} alıyor."),
  "likes": ("{person} {food} seviyor.", "{person} {food} çok seviyor."),
  "speaks": ("{person} {tongue} konuşuyor.", "{person} evde {tongue} konuşuyor."),
  "travels": ("{person} {day} {city.to} gidiyor.", "{day} {person} {city.to} seyahat ediyor."),
  "kin": ("{person}, {other.gen} {kin.is/person}.", "{other.gen} {kin.gen/person} adı {person}."),
  "does": ("{person} {time} {action}.", "{time} {person} {action}."),
  "country": ("{city}, {country} bir şehirdir.", "{city} şehri {country} yer alıyor."),
  "capital": ("{city}, {country.gen} başkentidir.", "{country.gen} başkenti {city.is}."),
  "weather": ("{day} {city.in} {weather}.", "{city.in} {day} {weather}."),
  "sights": ("{city.in} {number} {sight} var.", "{city} şehrinde {number.word} {sight} bulunuyor."),
  "sleeps": ("{colour} {animal} {spot} uyuyor.", "{spot} uyuyan {animal} {colour}."),
}

QUESTIONS = {
  ("lives", "city"): "{person} nerede yaşıyor?",
  ("lives", "person"): "{city.in} kim yaşıyor?",
  ("born", "city"): "{person} nerede doğdu?",
  ("year", "year"): "{person} hangi yıl doğdu?",
  ("age", "age"): "{person} kaç yaşında?",
  ("job", "job"): "{person.gen} mesleği ne?",
  ("works", "place"): "{person} nerede çalışıyor?",
  ("pet", "animal"): "{person.gen} hangi hayvanı var?",
  ("buys", "number"): "{person} kaç {goods} alıyor?",
  ("likes", "food"): "{person} neyi seviyor?",
  ("speaks", "tongue"): "{person} hangi dili konuşuyor?",
  ("travels", "city"): "{person} {day} nereye gidiyor?",
  ("travels", "day"): "{person} {city.to} ne zaman gidiyor?",
  ("kin", "person"): "{other.gen} {kin/person} kim?",
  ("country", "country"): "{city} hangi ülkede?",
  ("capital", "city"): "{country.gen} başkenti neresi?",
  ("sights", "number"): "{city.in} kaç {sight} var?",
  ("sleeps", "spot"): "{colour} {animal} nerede uyuyor?",
}
