"""English."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name", """
    anna: Anna; maria: Maria; sara: Sara; fatima: Fatima; elena: Elena; leila: Leila; amina: Amina; olga: Olga
    julia: Julia; zeynep: Zeynep; priya: Priya; meiling: Meiling
    ali: Ali; omar: Omar; ivan: Ivan; david: David; daniel: Daniel; hassan: Hassan; viktor: Victor; paul: Paul
    ravi: Ravi; mehmet: Mehmet; juma: Juma; nikos: Nikos"""),
  "city": table("name", """
    london: London; paris: Paris; berlin: Berlin; hamburg: Hamburg; madrid: Madrid; barcelona: Barcelona
    rome: Rome; athens: Athens; sofia: Sofia; moscow: Moscow; istanbul: Istanbul; ankara: Ankara; cairo: Cairo
    nairobi: Nairobi; delhi: Delhi; mumbai: Mumbai; karachi: Karachi; beijing: Beijing; shanghai: Shanghai
    bangkok: Bangkok; hanoi: Hanoi; tokyo: Tokyo; new_york: New York"""),
  "country": table("name", """
    uk: Britain; france: France; germany: Germany; spain: Spain; italy: Italy; greece: Greece; turkey: Turkey
    bulgaria: Bulgaria; russia: Russia; egypt: Egypt; kenya: Kenya; india: India; pakistan: Pakistan
    china: China; thailand: Thailand; vietnam: Vietnam; japan: Japan; usa: the [United States]"""),
  "job": table("a", """
    teacher: a [teacher]; doctor: a [doctor]; cook: a [cook]; engineer: an [engineer]; farmer: a [farmer]
    scientist: a [scientist]; actor: an [actor]; lawyer: a [lawyer]; seller: a [shop assistant]
    librarian: a [librarian]"""),
  "place": table("at", """
    school: at a [school]; hospital: at a [hospital]; restaurant: in a [restaurant]; factory: in a [factory]
    university: at a [university]; theatre: in a [theatre]; farm: on a [farm]; office: in an [office]
    shop: in a [shop]; library: in a [library]"""),
  "animal": table("name", "cat: cat; dog: dog; horse: horse; rabbit: rabbit; parrot: parrot; goat: goat; cow: cow"),
  "colour": table("name", """
    black: black; white: white; brown: brown; grey: grey; red: red; blue: blue; green: green"""),
  "thing": table("name", """
    car: car; bicycle: bicycle; bag: bag; house: house; coat: coat; umbrella: umbrella; hat: hat"""),
  "goods": table("many", """
    book: books; apple: apples; egg: eggs; ticket: tickets; pen: pens; flower: flowers; cup: cups"""),
  "food": table("name", """
    tea: tea; coffee: coffee; bread: bread; rice: rice; fish: fish; milk: milk; cheese: cheese; honey: honey"""),
  "tongue": table("name", """
    english: English; french: French; german: German; spanish: Spanish; russian: Russian; arabic: Arabic
    hindi: Hindi; turkish: Turkish; chinese: Chinese; swahili: Swahili; greek: Greek"""),
  "day": table("on", """
    monday: on [Monday]; tuesday: on [Tuesday]; wednesday: on [Wednesday]; thursday: on [Thursday]
    friday: on [Friday]; saturday: on [Saturday]; sunday: on [Sunday]"""),
  "weather": table("is", """
    hot: it is hot; cold: it is cold; rain: it is raining; snow: it is snowing; sun: it is sunny
    wind: it is windy"""),
  "sight": table("many", """
    museum: museums; park: parks; bridge: bridges; market: markets; hotel: hotels; school: schools"""),
  "action": table("does", """
    read: reads a book; cook: cooks dinner; swim: swims; sing: sings; dance: dances; football: plays football
    music: listens to music; letters: writes letters"""),
  "time": table("in", "morning: in the morning; afternoon: in the afternoon; evening: in the evening"),
  "kin": table("m f", """
    parent: father | mother; child: son | daughter; sibling: brother | sister; friend: friend | friend
    neighbour: neighbour | neighbour"""),
  "spot": table("in", """
    garden: in the garden; house: in the house; kitchen: in the kitchen; table: under the table
    door: by the door"""),
  "number": table("word", "3: three; 4: four; 5: five; 6: six; 7: seven; 8: eight; 9: nine"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} lives in {city}.", "{person}'s home is in {city}."),
  "born": ("{person} was born in {city}.", "{person} comes from {city}."),
  "year": ("{person} was born in {year}.", "{person}'s year of birth is {year}."),
  "age": ("{person} is {age} years old.", "{person} is {age}."),
  "job": ("{person} is {job}.", "{person} works as {job}."),
  "works": ("{person} works {place}.", "Every day {person} works {place}."),
  "pet": ("{person} has a {colour} {animal}.", "{person}'s {animal} is {colour}."),
  "owns": ("{person} has a {colour} {thing}.", "{person}'s {thing} is {colour}."),
  "buys": ("{person} buys {number} {goods}.", "{person} buys {number.word} {goods} at the market."),
  "likes": ("{person} likes {food}.", "{person} likes {food} very much."),
  "speaks": ("{person} speaks {tongue}.", "{person} speaks {tongue} at home."),
  "travels": ("{person} is going to {city} {day}.", "{day} {person} is travelling to {city}."),
  "kin": ("{person} is {other}'s {kin/person}.", "{other}'s {kin/person} is called {person}."),
  "does": ("{person} {action} {time}.", "{time} {person} {action}."),
  "country": ("{city} is a city in {country}.", "The city of {city} is in {country}."),
  "capital": ("{city} is the capital of {country}.", "The capital of {country} is {city}."),
  "weather": ("{day} {weather} in {city}.", "In {city} {weather} {day}."),
  "sights": ("There are {number} {sight} in {city}.", "{city} has {number.word} {sight}."),
  "sleeps": ("The {colour} {animal} is sleeping {spot}.", "The {animal} sleeping {spot} is {colour}."),
}

QUESTIONS = {
  ("lives", "city"): "Where does {person} live?",
  ("lives", "person"): "Who lives in {city}?",
  ("born", "city"): "Where was {person} born?",
  ("year", "year"): "In which year was {person} born?",
  ("age", "age"): "How old is {person}?",
  ("job", "job"): "What is {person}'s job?",
  ("works", "place"): "Where does {person} work?",
  ("pet", "animal"): "Which animal does {person} have?",
  ("buys", "number"): "How many {goods} does {person} buy?",
  ("likes", "food"): "What does {person} like?",
  ("speaks", "tongue"): "Which language does {person} speak?",
  ("travels", "city"): "Where is {person} going {day}?",
  ("travels", "day"): "When is {person} going to {city}?",
  ("kin", "person"): "Who is {other}'s {kin/person}?",
  ("country", "country"): "Which country is {city} in?",
  ("capital", "city"): "What is the capital of {country}?",
  ("sights", "number"): "How many {sight} are there in {city}?",
  ("sleeps", "spot"): "Where is the {colour} {animal} sleeping?",
}
