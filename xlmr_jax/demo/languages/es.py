"""Spanish."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name", """
    anna: Ana; maria: María; sara: Sara; fatima: Fátima; elena: Elena; leila: Leila; amina: Amina; olga: Olga
    julia: Julia; zeynep: Zeynep; priya: Priya; meiling: Meiling
    ali: Alí; omar: Omar; ivan: Iván; david: David; daniel: Daniel; hassan: Hassan; viktor: Víctor; paul: Paul
    ravi: Ravi; mehmet: Mehmet; juma: Juma; nikos: Nikos"""),
  "city": table("name", """
    london: Londres; paris: París; berlin: Berlín; hamburg: Hamburgo; madrid: Madrid; barcelona: Barcelona
    rome: Roma; athens: Atenas; sofia: Sofía; moscow: Moscú; istanbul: Estambul; ankara: Ankara
    cairo: El Cairo
    nairobi: Nairobi; delhi: Delhi; mumbai: Bombay; karachi: Karachi; beijing: Pekín; shanghai: Shanghái
    bangkok: Bangkok; hanoi: Hanói; tokyo: Tokio; new_york: Nueva York"""),
  "country": table("name", """
    uk: Gran Bretaña; france: Francia; germany: Alemania; spain: España; italy: Italia; greece: Grecia
    turkey: Turquía; bulgaria: Bulgaria; russia: Rusia; egypt: Egipto; kenya: Kenia; india: la [India]
    pakistan: Pakistán; china: China; thailand: Tailandia; vietnam: Vietnam; japan: Japón
    usa: Estados Unidos"""),
  "job": table("m f", """
    teacher: profesor | profesora; doctor: médico | médica; cook: cocinero | cocinera
    engineer: ingeniero | ingeniera; scientist: científico | científica; actor: actor | actriz
    farmer: agricultor | agricultora; lawyer: abogado | abogada; seller: vendedor | vendedora
    librarian: bibliotecario | bibliotecaria"""),
  "place": table("at", """
    school: en una [escuela]; hospital: en un [hospital]; restaurant: en un [restaurante]
    factory: en una [fábrica]; university: en una [universidad]; theatre: en un [teatro]
    farm: en una [granja]
    office: en una [oficina]; shop: en una [tienda]; library: en una [biblioteca]"""),
  "animal": table("class name", """
    cat: m | gato; dog: m | perro; horse: m | caballo; rabbit: m | conejo; parrot: m | loro; goat: f | cabra
    cow: f | vaca"""),
  "colour": table("m f", """
    black: negro | negra; white: blanco | blanca; brown: marrón | marrón; grey: gris | gris; red: rojo | roja
    blue: azul | azul; green: verde | verde"""),
  "thing": table("class name", """
    car: m | coche; bicycle: f | bicicleta; bag: m | bolso; house: f | casa; coat: m | abrigo
    umbrella: m | paraguas; hat: m | sombrero"""),
  "goods": table("class many", """
    book: m | libros; apple: f | manzanas; egg: m | huevos; ticket: m | billetes; pen: m | bolígrafos
    flower: f | flores; cup: f | tazas"""),
  "food": table("the", """
    tea: el [té]; coffee: el [café]; bread: el [pan]; rice: el [arroz]; fish: el [pescado]; milk: la [leche]
    cheese: el [queso]; honey: la [miel]"""),
  "tongue": table("name", """
    english: inglés; french: francés; german: alemán; spanish: español; russian: ruso; arabic: árabe
    hindi: hindi; turkish: turco; chinese: chino; swahili: suajili; greek: griego"""),
  "day": table("on", """
    monday: el [lunes]; tuesday: el [martes]; wednesday: el [miércoles]; thursday: el [jueves]
    friday: el [viernes]; saturday: el [sábado]; sunday: el [domingo]"""),
  "weather": table("is", """
    hot: hace calor; cold: hace frío; rain: llueve; snow: nieva; sun: hace sol; wind: hace viento"""),
  "sight": table("class many", """
    museum: m | museos; park: m | parques; bridge: m | puentes; market: m | mercados; hotel: m | hoteles
    school: f | escuelas"""),
  "action": table("does", """
    read: lee un libro; cook: prepara la cena; swim: nada; sing: canta; dance: baila
    football: juega al fútbol
    music: escucha música; letters: escribe cartas"""),
  "time": table("in", "morning: por la mañana; afternoon: por la tarde; evening: por la noche"),
  "kin": table("m f", """
    parent: padre | madre; child: hijo | hija; sibling: hermano | hermana; friend: amigo | amiga
    neighbour: vecino | vecina"""),
  "spot": table("in", """
    garden: en el jardín; house: en la casa; kitchen: en la cocina; table: debajo de la mesa
    door: junto a la puerta"""),
  "number": table("word", "3: tres; 4: cuatro; 5: cinco; 6: seis; 7: siete; 8: ocho; 9: nueve"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} vive en {city}.", "La casa de {person} está en {city}."),
  "born": ("{person} nació en {city}.", "{person} es de {city}."),
  "year": ("{person} nació en {year}.", "El año de nacimiento de {person} es {year}."),
  "age": ("{person} tiene {age} años.", "{person} ha cumplido {age} años."),
  "job": ("{person} es {job/person}.", "{person} trabaja como {job/person}."),
  "works": ("{person} trabaja {place}.", "Todos los días {person} trabaja {place}."),
  "pet": (
    "{person} tiene {animal:un|una} {animal} {colour/animal}.",
    "{animal:El|La} {animal} de {person} es {colour/animal}.",
  ),
  "owns": ("{person} tiene {thing:un|una} {thing} {colour/thing}.", "{thing:El|La} {thing} de {person} es {colour/thing}."),
  "buys": ("{person} compra {number} {goods}.", "{person} compra {number.word} {goods} en el mercado."),
  "likes": ("A {person} le gusta {food}.", "A {person} le gusta mucho {food}."),
  "speaks": ("{person} habla {tongue}.", "En casa {person} habla {tongue}."),
  "travels": ("{person} viaja a {city} {day}.", "{day} {person} va a {city}."),
  "kin": (
    "{person} es {person:el|la} {kin/person} de {other}.",
    "{person:El|La} {kin/person} de {other} se llama {person}.",
  ),
  "does": ("{person} {action} {time}.", "{time} {person} {action}."),
  "country": ("{city} es una ciudad de {country}.", "La ciudad de {city} está en {country}."),
  "capital": ("{city} es la capital de {country}.", "La capital de {country} es {city}."),
  "weather": ("{day} {weather} en {city}.", "En {city} {weather} {day}."),
  "sights": ("Hay {number} {sight} en {city}.", "{city} tiene {number.word} {sight}."),
  "sleeps": (
    "{animal:El|La} {animal} {colour/animal} duerme {spot}.",
    "{animal:El|La} {animal} que duerme {spot} es {colour/animal}.",
  ),
}

QUESTIONS = {
  ("lives", "city"): "¿Dónde vive {person}?",
  ("lives", "person"): "¿Quién vive en {city}?",
  ("born", "city"): "¿Dónde nació {person}?",
  ("year", "year"): "¿En qué año nació {person}?",
  ("age", "age"): "¿Cuántos años tiene {person}?",
  ("job", "job"): "¿Cuál es la profesión de {person}?",
  ("works", "place"): "¿Dónde trabaja {person}?",
  ("pet", "animal"): "¿Qué animal tiene {person}?",
  ("buys", "number"): "¿{goods:Cuántos|Cuántas} {goods} compra {person}?",
  ("likes", "food"): "¿Qué le gusta a {person}?",
  ("speaks", "tongue"): "¿Qué idioma habla {person}?",
  ("travels", "city"): "¿Adónde viaja {person} {day}?",
  ("travels", "day"): "¿Cuándo viaja {person} a {city}?",
  ("kin", "person"): "¿Quién es {person:el|la} {kin/person} de {other}?",
  ("country", "country"): "¿En qué país está {city}?",
  ("capital", "city"): "¿Cuál es la capital de {country}?",
  ("sights", "number"): "¿{sight:Cuántos|Cuántas} {sight} hay en {city}?",
  ("sleeps", "spot"): "¿Dónde duerme {animal:el|la} {animal} {colour/animal}?",
}
