"""German."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name gen", """
    anna: Anna | [Anna]s; maria: Maria | [Maria]s; sara: Sara | [Sara]s; fatima: Fatima | [Fatima]s
    elena: Elena | [Elena]s; leila: Leila | [Leila]s; amina: Amina | [Amina]s; olga: Olga | [Olga]s
    julia: Julia | [Julia]s; zeynep: Zeynep | [Zeynep]s; priya: Priya | [Priya]s
    meiling: Meiling | [Meiling]s
    ali: Ali | [Ali]s; omar: Omar | [Omar]s; ivan: Iwan | [Iwan]s; david: David | [David]s
    daniel: Daniel | [Daniel]s; hassan: Hassan | [Hassan]s; viktor: Viktor | [Viktor]s; paul: Paul | [Paul]s
    ravi: Ravi | [Ravi]s; mehmet: Mehmet | [Mehmet]s; juma: Juma | [Juma]s; nikos: Nikos | [Nikos]'"""),
  "city": table("name", """
    london: London; paris: Paris; berlin: Berlin; hamburg: Hamburg; madrid: Madrid; barcelona: Barcelona
    rome: Rom; athens: Athen; sofia: Sofia; moscow: Moskau; istanbul: Istanbul; ankara: Ankara; cairo: Kairo
    nairobi: Nairobi; delhi: Delhi; mumbai: Mumbai; karachi: Karatschi; beijing: Peking; shanghai: Schanghai
    bangkok: Bangkok; hanoi: Hanoi; tokyo: Tokio; new_york: New York"""),
  "country": table("in of", """
    uk: in [Großbritannien] | von [Großbritannien]; france: in [Frankreich] | von [Frankreich]
    germany: in [Deutschland] | von [Deutschland]; spain: in [Spanien] | von [Spanien]
    italy: in [Italien] | von [Italien]; greece: in [Griechenland] | von [Griechenland]
    turkey: in der [Türkei] | der [Türkei]; bulgaria: in [Bulgarien] | von [Bulgarien]
    russia: in [Russland] | von [Russland]; egypt: in [Ägypten] | von [Ägypten]
    kenya: in [Kenia] | von [Kenia]
    india: in [Indien] | von [Indien]; pakistan: in [Pakistan] | von [Pakistan]
    china: in [China] | von [China]
    thailand: in [Thailand] | von [Thailand]; vietnam: in [Vietnam] | von [Vietnam]
    japan: in [Japan] | von [Japan]; usa: in den [USA] | der [USA]"""),
  "job": table("m f", """
    teacher: Lehrer | Lehrerin; doctor: Arzt | Ärztin; cook: Koch | Köchin; engineer: Ingenieur | Ingenieurin
    scientist: Wissenschaftler | Wissenschaftlerin; actor: Schauspieler | Schauspielerin
    farmer: Landwirt | Landwirtin; lawyer: Rechtsanwalt | Rechtsanwältin; seller: Verkäufer | Verkäuferin
    librarian: Bibliothekar | Bibliothekarin"""),
  "place": table("at", """
    school: in einer [Schule]; hospital: in einem [Krankenhaus]; restaurant: in einem [Restaurant]
    factory: in einer [Fabrik]; university: an einer [Universität]; theatre: an einem [Theater]
    farm: auf einem [Bauernhof]; office: in einem [Büro]; shop: in einem [Laden]
    library: in einer [Bibliothek]"""),
  "animal": table("class name", """
    cat: f | Katze; dog: m | Hund; horse: n | Pferd; rabbit: n | Kaninchen; parrot: m | Papagei
    goat: f | Ziege
    cow: f | Kuh"""),
  # After a form of "ein" in the accusative; after "der", "die", "das"; after "ist".
  "colour": table("acc_m acc_f acc_n the is", """
    black: schwarzen | schwarze | schwarzes | schwarze | schwarz
    white: weißen | weiße | weißes | weiße | weiß
    brown: braunen | braune | braunes | braune | braun
    grey: grauen | graue | graues | graue | grau
    red: roten | rote | rotes | rote | rot
    blue: blauen | blaue | blaues | blaue | blau
    green: grünen | grüne | grünes | grüne | grün"""),
  "thing": table("class name", """
    car: n | Auto; bicycle: n | Fahrrad; bag: f | Tasche; house: n | Haus; coat: m | Mantel
    umbrella: m | Regenschirm; hat: m | Hut"""),
  "goods": table("many", """
    book: Bücher; apple: Äpfel; egg: Eier; ticket: Fahrkarten; pen: Stifte; flower: Blumen; cup: Tassen"""),
  "food": table("name", """
    tea: Tee; coffee: Kaffee; bread: Brot; rice: Reis; fish: Fisch; milk: Milch; cheese: Käse
    honey: Honig"""),
  "tongue": table("name", """
    english: Englisch; french: Französisch; german: Deutsch; spanish: Spanisch; russian: Russisch
    arabic: Arabisch; hindi: Hindi; turkish: Türkisch; chinese: Chinesisch; swahili: Suaheli
    greek: Griechisch"""),
  "day": table("on", """
    monday: am [Montag]; tuesday: am [Dienstag]; wednesday: am [Mittwoch]; thursday: am [Donnerstag]
    friday: am [Freitag]; saturday: am [Samstag]; sunday: am [Sonntag]"""),
  # The class stands for the verb, which stands apart from the rest.
  "weather": table("class rest noun", """
    hot: be | heiß | Hitze; cold: be | kalt | Kälte; rain: fall | Regen | Regen; snow: fall | Schnee | Schnee
    sun: shine | die Sonne | Sonne; wind: blow | ein starker Wind | Wind"""),
  "sight": table("many", """
    museum: Museen; park: Parks; bridge: Brücken; market: Märkte; hotel: Hotels; school: Schulen"""),
  "action": table("class rest", """
    read: read | ein Buch; cook: cook | das Abendessen; swim: go | schwimmen; sing: sing | Lieder
    dance: go | tanzen; football: play | Fußball; music: hear | Musik; letters: write | Briefe"""),
  "time": table("in", "morning: am Morgen; afternoon: am Nachmittag; evening: am Abend"),
  "kin": table("m f", """
    parent: Vater | Mutter; child: Sohn | Tochter; sibling: Bruder | Schwester; friend: Freund | Freundin
    neighbour: Nachbar | Nachbarin"""),
  "spot": table("in", """
    garden: im Garten; house: im Haus; kitchen: in der Küche; table: unter dem Tisch; door: neben der Tür"""),
  "number": table("word", "3: drei; 4: vier; 5: fünf; 6: sechs; 7: sieben; 8: acht; 9: neun"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} wohnt in {city}.", "{person.gen} Zuhause ist in {city}."),
  "born": ("{person} wurde in {city} geboren.", "{person} kommt aus {city}."),
  "year": ("{person} wurde {year} geboren.", "{person.gen} Geburtsjahr ist {year}."),
  "age": ("{person} ist {age} Jahre alt.", "{person} ist {age}."),
  "job": ("{person} ist {job/person}.", "{person} arbeitet als {job/person}."),
  "works": ("{person} arbeitet {place}.", "Jeden Tag arbeitet {person} {place}."),
  "pet": ("{person} hat {animal:einen|eine|ein} {colour.acc/animal} {animal}.", "{person.gen} {animal} ist {colour.is}."),
  "owns": ("{person} hat {thing:einen|eine|ein} {colour.acc/thing} {thing}.", "{person.gen} {thing} ist {colour.is}."),
  "buys": ("{person} kauft {number} {goods}.", "{person} kauft auf dem Markt {number.word} {goods}."),
  "likes": ("{person} mag {food}.", "{food} schmeckt {person} sehr gut."),
  "speaks": ("{person} spricht {tongue}.", "{person} spricht zu Hause {tongue}."),
  "travels": ("{person} fährt {day} nach {city}.", "{day} reist {person} nach {city}."),
  "kin": ("{person} ist {other.gen} {kin/person}.", "{other.gen} {kin/person} heißt {person}."),
  "does": (
    "{person} {action:kocht|geht|hört|spielt|liest|singt|schreibt} {time} {action}.",
    "{time} {action:kocht|geht|hört|spielt|liest|singt|schreibt} {person} {action}.",
  ),
  "country": ("{city} ist eine Stadt {country}.", "Die Stadt {city} liegt {country}."),
  "capital": ("{city} ist die Hauptstadt {country.of}.", "Die Hauptstadt {country.of} ist {city}."),
  "weather": (
    "{day} {weather:ist es|weht|fällt|scheint} in {city} {weather}.",
    "In {city} erwartet man {day} {weather.noun}.",
  ),
  "sights": ("In {city} gibt es {number} {sight}.", "{city} hat {number.word} {sight}."),
  "sleeps": (
    "{animal:Der|Die|Das} {colour.the} {animal} schläft {spot}.",
    "{animal:Der|Die|Das} {animal}, {animal:der|die|das} {spot} schläft, ist {colour.is}.",
  ),
}

QUESTIONS = {
  ("lives", "city"): "Wo wohnt {person}?",
  ("lives", "person"): "Wer wohnt in {city}?",
  ("born", "city"): "Wo wurde {person} geboren?",
  ("year", "year"): "In welchem Jahr wurde {person} geboren?",
  ("age", "age"): "Wie alt ist {person}?",
  ("job", "job"): "Was ist {person} von Beruf?",
  ("works", "place"): "Wo arbeitet {person}?",
  ("pet", "animal"): "Welches Tier hat {person}?",
  ("buys", "number"): "Wie viele {goods} kauft {person}?",
  ("likes", "food"): "Was mag {person}?",
  ("speaks", "tongue"): "Welche Sprache spricht {person}?",
  ("travels", "city"): "Wohin fährt {person} {day}?",
  ("travels", "day"): "Wann fährt {person} nach {city}?",
  ("kin", "person"): "Wer ist {other.gen} {kin/person}?",
  ("country", "country"): "In welchem Land liegt {city}?",
  ("capital", "city"): "Wie heißt die Hauptstadt {country.of}?",
  ("sights", "number"): "Wie viele {sight} gibt es in {city}?",
  ("sleeps", "spot"): "Wo schläft {animal:der|die|das} {colour.the} {animal}?",
}
