"""Russian."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "


def plural(number: int) -> str:
  """one: 21 год; few: 3 года; many: 5 лет."""
  if number % 100 in range(11, 15):
    return "many"
  return {1: "one", 2: "few", 3: "few", 4: "few"}.get(number % 10, "many")


WORDS = {
  "person": table("name gen dat", """
    anna: Анна | Анны | Анне; maria: Мария | Марии | Марии; sara: Сара | Сары | Саре
    fatima: Фатима | Фатимы | Фатиме; elena: Елена | Елены | Елене; leila: Лейла | Лейлы | Лейле
    amina: Амина | Амины | Амине; olga: Ольга | Ольги | Ольге; julia: Юлия | Юлии | Юлии
    zeynep: Зейнеп | Зейнеп | Зейнеп; priya: Прия | Прии | Прие; meiling: Мэйлин | Мэйлин | Мэйлин
    ali: Али | Али | Али; omar: Омар | Омара | Омару; ivan: Иван | Ивана | Ивану
    david: Давид | Давида | Давиду; daniel: Даниил | Даниила | Даниилу; hassan: Хасан | Хасана | Хасану
    viktor: Виктор | Виктора | Виктору; paul: Павел | Павла | Павлу; ravi: Рави | Рави | Рави
    mehmet: Мехмет | Мехмета | Мехмету; juma: Джума | Джумы | Джуме; nikos: Никос | Никоса | Никосу"""),
  "city": table("name in to from", """
    london: Лондон | в [Лондоне] | в [Лондон] | из [Лондона]
    paris: Париж | в [Париже] | в [Париж] | из [Парижа]
    berlin: Берлин | в [Берлине] | в [Берлин] | из [Берлина]
    hamburg: Гамбург | в [Гамбурге] | в [Гамбург] | из [Гамбурга]
    madrid: Мадрид | в [Мадриде] | в [Мадрид] | из [Мадрида]
    barcelona: Барселона | в [Барселоне] | в [Барселону] | из [Барселоны]
    rome: Рим | в [Риме] | в [Рим] | из [Рима]
    athens: Афины | в [Афинах] | в [Афины] | из [Афин]
    sofia: София | в [Софии] | в [Софию] | из [Софии]
    moscow: Москва | в [Москве] | в [Москву] | из [Москвы]
    istanbul: Стамбул | в [Стамбуле] | в [Стамбул] | из [Стамбула]
    ankara: Анкара | в [Анкаре] | в [Анкару] | из [Анкары]
    cairo: Каир | в [Каире] | в [Каир] | из [Каира]
    nairobi: Найроби | в [Найроби] | в [Найроби] | из [Найроби]
    delhi: Дели | в [Дели] | в [Дели] | из [Дели]
    mumbai: Мумбаи | в [Мумбаи] | в [Мумбаи] | из [Мумбаи]
    karachi: Карачи | в [Карачи] | в [Карачи] | из [Карачи]
    beijing: Пекин | в [Пекине] | в [Пекин] | из [Пекина]
    shanghai: Шанхай | в [Шанхае] | в [Шанхай] | из [Шанхая]
    bangkok: Бангкок | в [Бангкоке] | в [Бангкок] | из [Бангкока]
    hanoi: Ханой | в [Ханое] | в [Ханой] | из [Ханоя]
    tokyo: Токио | в [Токио] | в [Токио] | из [Токио]
    new_york: Нью-Йорк | в [Нью-Йорке] | в [Нью-Йорк] | из [Нью-Йорка]"""),
  "country": table("in gen", """
    uk: в [Великобритании] | Великобритании; france: во [Франции] | Франции
    germany: в [Германии] | Германии; spain: в [Испании] | Испании
    italy: в [Италии] | Италии; greece: в [Греции] | Греции
    turkey: в [Турции] | Турции; bulgaria: в [Болгарии] | Болгарии; russia: в [России] | России
    egypt: в [Египте] | Египта; kenya: в [Кении] | Кении; india: в [Индии] | Индии
    pakistan: в [Пакистане] | Пакистана; china: в [Китае] | Китая; thailand: в [Таиланде] | Таиланда
    vietnam: во [Вьетнаме] | Вьетнама; japan: в [Японии] | Японии; usa: в [США] | США"""),
  "job": table("m f inst_m inst_f", """
    teacher: учитель | учительница | учителем | учительницей; doctor: врач | врач | врачом | врачом
    cook: повар | повар | поваром | поваром; engineer: инженер | инженер | инженером | инженером
    scientist: научный сотрудник | научный сотрудник | научным сотрудником | научным сотрудником
    actor: актёр | актриса | актёром | актрисой; farmer: фермер | фермер | фермером | фермером
    lawyer: юрист | юрист | юристом | юристом; seller: продавец | продавщица | продавцом | продавщицей
    librarian: библиотекарь | библиотекарь | библиотекарем | библиотекарем"""),
  "place": table("in to", """
    school: в [школе] | в [школу]; hospital: в [больнице] | в [больницу]
    restaurant: в [ресторане] | в [ресторан]; factory: на [заводе] | на [завод]
    university: в [университете] | в [университет]; theatre: в [театре] | в [театр]
    farm: на [ферме] | на [ферму]; office: в [офисе] | в [офис]; shop: в [магазине] | в [магазин]
    library: в [библиотеке] | в [библиотеку]"""),
  "animal": table("class name", """
    cat: f | кошка; dog: f | собака; horse: f | лошадь; rabbit: m | кролик; parrot: m | попугай
    goat: f | коза; cow: f | корова"""),
  "colour": table("m f n", """
    black: чёрный | чёрная | чёрное; white: белый | белая | белое
    brown: коричневый | коричневая | коричневое; grey: серый | серая | серое
    red: красный | красная | красное; blue: синий | синяя | синее; green: зелёный | зелёная | зелёное"""),
  "thing": table("class name", """
    car: f | машина; bicycle: m | велосипед; bag: f | сумка; house: m | дом; coat: n | пальто
    umbrella: m | зонт; hat: f | шляпа"""),
  "goods": table("few many", """
    book: книги | книг; apple: яблока | яблок; egg: яйца | яиц; ticket: билета | билетов; pen: ручки | ручек
    flower: цветка | цветков; cup: чашки | чашек"""),
  "food": table("name acc", """
    tea: чай | чай; coffee: кофе | кофе; bread: хлеб | хлеб; rice: рис | рис; fish: рыба | рыбу
    milk: молоко | молоко; cheese: сыр | сыр; honey: мёд | мёд"""),
  "tongue": table("adv prep", """
    english: по-английски | на [английском] языке; french: по-французски | на [французском] языке
    german: по-немецки | на [немецком] языке; spanish: по-испански | на [испанском] языке
    russian: по-русски | на [русском] языке; arabic: по-арабски | на [арабском] языке
    hindi: на [хинди] | на языке [хинди]; turkish: по-турецки | на [турецком] языке
    chinese: по-китайски | на [китайском] языке; swahili: на [суахили] | на языке [суахили]
    greek: по-гречески | на [греческом] языке"""),
  "day": table("on", """
    monday: в [понедельник]; tuesday: во [вторник]; wednesday: в [среду]; thursday: в [четверг]
    friday: в [пятницу]; saturday: в [субботу]; sunday: в [воскресенье]"""),
  "weather": table("is", """
    hot: жарко; cold: холодно; rain: идёт дождь; snow: идёт снег; sun: светит солнце; wind: дует ветер"""),
  "sight": table("few many", """
    museum: музея | музеев; park: парка | парков; bridge: моста | мостов; market: рынка | рынков
    hotel: гостиницы | гостиниц; school: школы | школ"""),
  "action": table("does", """
    read: читает книгу; cook: готовит еду; swim: плавает; sing: поёт; dance: танцует
    football: играет в футбол; music: слушает музыку; letters: пишет письма"""),
  "time": table("in", "morning: утром; afternoon: днём; evening: вечером"),
  "kin": table("m f acc_m acc_f", """
    parent: отец | мать | отца | мать; child: сын | дочь | сына | дочь
    sibling: брат | сестра | брата | сестру; friend: друг | подруга | друга | подругу
    neighbour: сосед | соседка | соседа | соседку"""),
  "spot": table("in", """
    garden: в саду; house: в доме; kitchen: на кухне; table: под столом; door: у двери"""),
  "number": table("word", "3: три; 4: четыре; 5: пять; 6: шесть; 7: семь; 8: восемь; 9: девять"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} живёт {city.in}.", "Дом {person.gen} находится {city.in}."),
  "born": ("{person} {person:родился|родилась} {city.in}.", "{person} родом {city.from}."),
  "year": ("{person} {person:родился|родилась} в {year} году.", "Год рождения {person.gen} — {year}."),
  "age": ("{person.dat} {age} {age:года|лет|год}.", "Возраст {person.gen} — {age} {age:года|лет|год}."),
  "job": ("{person} работает {job.inst/person}.", "{person} по профессии {job/person}."),
  "works": ("{person} работает {place}.", "Каждый день {person} ходит на работу {place.to}."),
  "pet": ("У {person.gen} есть {colour/animal} {animal}.", "{animal} у {person.gen} {colour/animal}."),
  "owns": ("У {person.gen} есть {colour/thing} {thing}.", "{thing} у {person.gen} {colour/thing}."),
  "buys": ("{person} покупает {number} {goods/number}.", "На рынке {person} покупает {number.word} {goods/number}."),
  "likes": ("{person} любит {food.acc}.", "{person.dat} очень нравится {food}."),
  "speaks": ("{person} говорит {tongue}.", "Дома {person} говорит {tongue.prep}."),
  "travels": ("{person} едет {city.to} {day}.", "{day} {person} отправляется {city.to}."),
  "kin": ("{person} — {kin/person} {other.gen}.", "{kin.acc/person} {other.gen} зовут {person}."),
  "does": ("{person} {time} {action}.", "{time} {person} {action}."),
  "country": ("{city} — город {country}.", "Город {city} находится {country}."),
  "capital": ("{city} — столица {country.gen}.", "Столица {country.gen} — {city}."),
  "weather": ("{day} {city.in} {weather}.", "{city.in} {day} {weather}."),
  "sights": ("{city.in} есть {number} {sight/number}.", "Всего {city.in} {number.word} {sight/number}."),
  "sleeps": ("{colour/animal} {animal} спит {spot}.", "{spot} спит {colour/animal} {animal}."),
}

QUESTIONS = {
  ("lives", "city"): "Где живёт {person}?",
  ("lives", "person"): "Кто живёт {city.in}?",
  ("born", "city"): "Где {person:родился|родилась} {person}?",
  ("year", "year"): "В каком году {person:родился|родилась} {person}?",
  ("age", "age"): "Сколько лет {person.dat}?",
  ("job", "job"): "Кем работает {person}?",
  ("works", "place"): "Где работает {person}?",
  ("pet", "animal"): "Какое животное есть у {person.gen}?",
  ("buys", "number"): "Сколько {goods.many} покупает {person}?",
  ("likes", "food"): "Что любит {person}?",
  ("speaks", "tongue"): "На каком языке говорит {person}?",
  ("travels", "city"): "Куда едет {person} {day}?",
  ("travels", "day"): "Когда {person} едет {city.to}?",
  ("kin", "person"): "Как зовут {kin.acc/person} {other.gen}?",
  ("country", "country"): "В какой стране находится город {city}?",
  ("capital", "city"): "Какой город — столица {country.gen}?",
  ("sights", "number"): "Сколько {sight.many} {city.in}?",
  ("sleeps", "spot"): "Где спит {colour/animal} {animal}?",
}
