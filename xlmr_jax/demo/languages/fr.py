"""French. Before a question mark stands a no-break space, U+00A0."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "\u00a0?", " "

WORDS = {
  "person": table("name of that", """
    anna: Anna | d'[Anna] | qu'[Anna]; maria: Maria | de [Maria] | que [Maria]
    sara: Sara | de [Sara] | que [Sara]
    fatima: Fatima | de [Fatima] | que [Fatima]; elena: Elena | d'[Elena] | qu'[Elena]
    leila: Leïla | de [Leïla] | que [Leïla]; amina: Amina | d'[Amina] | qu'[Amina]
    olga: Olga | d'[Olga] | qu'[Olga]; julia: Julia | de [Julia] | que [Julia]
    zeynep: Zeynep | de [Zeynep] | que [Zeynep]; priya: Priya | de [Priya] | que [Priya]
    meiling: Meiling | de [Meiling] | que [Meiling]; ali: Ali | d'[Ali] | qu'[Ali]
    omar: Omar | d'[Omar] | qu'[Omar]
    ivan: Ivan | d'[Ivan] | qu'[Ivan]; david: David | de [David] | que [David]
    daniel: Daniel | de [Daniel] | que [Daniel]; hassan: Hassan | de [Hassan] | que [Hassan]
    viktor: Victor | de [Victor] | que [Victor]; paul: Paul | de [Paul] | que [Paul]
    ravi: Ravi | de [Ravi] | que [Ravi]; mehmet: Mehmet | de [Mehmet] | que [Mehmet]
    juma: Juma | de [Juma] | que [Juma]; nikos: Nikos | de [Nikos] | que [Nikos]"""),
  "city": table("name at of", """
    london: Londres | à [Londres] | de [Londres]; paris: Paris | à [Paris] | de [Paris]
    berlin: Berlin | à [Berlin] | de [Berlin]; hamburg: Hambourg | à [Hambourg] | de [Hambourg]
    madrid: Madrid | à [Madrid] | de [Madrid]; barcelona: Barcelone | à [Barcelone] | de [Barcelone]
    rome: Rome | à [Rome] | de [Rome]; athens: Athènes | à [Athènes] | d'[Athènes]
    sofia: Sofia | à [Sofia] | de [Sofia]; moscow: Moscou | à [Moscou] | de [Moscou]
    istanbul: Istanbul | à [Istanbul] | d'[Istanbul]; ankara: Ankara | à [Ankara] | d'[Ankara]
    cairo: Le Caire | au [Caire] | du [Caire]; nairobi: Nairobi | à [Nairobi] | de [Nairobi]
    delhi: Delhi | à [Delhi] | de [Delhi]; mumbai: Bombay | à [Bombay] | de [Bombay]
    karachi: Karachi | à [Karachi] | de [Karachi]; beijing: Pékin | à [Pékin] | de [Pékin]
    shanghai: Shanghai | à [Shanghai] | de [Shanghai]; bangkok: Bangkok | à [Bangkok] | de [Bangkok]
    hanoi: Hanoï | à [Hanoï] | de [Hanoï]; tokyo: Tokyo | à [Tokyo] | de [Tokyo]
    new_york: New York | à [New York] | de [New York]"""),
  "country": table("in of", """
    uk: en [Grande-Bretagne] | de la [Grande-Bretagne]; france: en [France] | de la [France]
    germany: en [Allemagne] | de l'[Allemagne]; spain: en [Espagne] | de l'[Espagne]
    italy: en [Italie] | de l'[Italie]; greece: en [Grèce] | de la [Grèce]
    turkey: en [Turquie] | de la [Turquie]
    bulgaria: en [Bulgarie] | de la [Bulgarie]; russia: en [Russie] | de la [Russie]
    egypt: en [Égypte] | de l'[Égypte]; kenya: au [Kenya] | du [Kenya]; india: en [Inde] | de l'[Inde]
    pakistan: au [Pakistan] | du [Pakistan]; china: en [Chine] | de la [Chine]
    thailand: en [Thaïlande] | de la [Thaïlande]; vietnam: au [Vietnam] | du [Vietnam]
    japan: au [Japon] | du [Japon]; usa: aux [États-Unis] | des [États-Unis]"""),
  "job": table("m f", """
    teacher: enseignant | enseignante; doctor: médecin | médecin; cook: cuisinier | cuisinière
    engineer: ingénieur | ingénieure; scientist: chercheur | chercheuse; actor: acteur | actrice
    farmer: agriculteur | agricultrice; lawyer: avocat | avocate; seller: vendeur | vendeuse
    librarian: bibliothécaire | bibliothécaire"""),
  "place": table("at", """
    school: dans une [école]; hospital: dans un [hôpital]; restaurant: dans un [restaurant]
    factory: dans une [usine]; university: dans une [université]; theatre: dans un [théâtre]
    farm: dans une [ferme]; office: dans un [bureau]; shop: dans un [magasin]
    library: dans une [bibliothèque]"""),
  "animal": table("class name", """
    cat: m | chat; dog: m | chien; horse: m | cheval; rabbit: m | lapin; parrot: m | perroquet
    goat: f | chèvre
    cow: f | vache"""),
  "colour": table("m f", """
    black: noir | noire; white: blanc | blanche; brown: brun | brune; grey: gris | grise; red: rouge | rouge
    blue: bleu | bleue; green: vert | verte"""),
  "thing": table("class name", """
    car: f | voiture; bicycle: m | vélo; bag: m | sac; house: f | maison; coat: m | manteau
    umbrella: m | parapluie; hat: m | chapeau"""),
  "goods": table("many of", """
    book: livres | de [livres]; apple: pommes | de [pommes]; egg: œufs | d'[œufs]
    ticket: billets | de [billets]
    pen: stylos | de [stylos]; flower: fleurs | de [fleurs]; cup: tasses | de [tasses]"""),
  "food": table("the", """
    tea: le [thé]; coffee: le [café]; bread: le [pain]; rice: le [riz]; fish: le [poisson]; milk: le [lait]
    cheese: le [fromage]; honey: le [miel]"""),
  "tongue": table("name", """
    english: anglais; french: français; german: allemand; spanish: espagnol; russian: russe; arabic: arabe
    hindi: hindi; turkish: turc; chinese: chinois; swahili: swahili; greek: grec"""),
  "day": table("on", """
    monday: lundi; tuesday: mardi; wednesday: mercredi; thursday: jeudi; friday: vendredi; saturday: samedi
    sunday: dimanche"""),
  "weather": table("is", """
    hot: il fait chaud; cold: il fait froid; rain: il pleut; snow: il neige; sun: il y a du soleil
    wind: il y a du vent"""),
  "sight": table("many of", """
    museum: musées | de [musées]; park: parcs | de [parcs]; bridge: ponts | de [ponts]
    market: marchés | de [marchés]; hotel: hôtels | d'[hôtels]; school: écoles | d'[écoles]"""),
  "action": table("does", """
    read: lit un livre; cook: prépare le dîner; swim: nage; sing: chante; dance: danse
    football: joue au football
    music: écoute de la musique; letters: écrit des lettres"""),
  "time": table("in", "morning: le matin; afternoon: l'après-midi; evening: le soir"),
  "kin": table("the_m the_f", """
    parent: le [père] | la [mère]; child: le [fils] | la [fille]; sibling: le [frère] | la [sœur]
    friend: l'[ami] | l'[amie]; neighbour: le [voisin] | la [voisine]"""),
  "spot": table("in", """
    garden: dans le jardin; house: dans la maison; kitchen: dans la cuisine; table: sous la table
    door: près de la porte"""),
  "number": table("word", "3: trois; 4: quatre; 5: cinq; 6: six; 7: sept; 8: huit; 9: neuf"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} habite {city.at}.", "La maison {person.of} se trouve {city.at}."),
  "born": ("{person} est {person:né|née} {city.at}.", "{person} vient {city.of}."),
  "year": ("{person} est {person:né|née} en {year}.", "L'année de naissance {person.of} est {year}."),
  "age": ("{person} a {age} ans.", "{person} est {person:âgé|âgée} de {age} ans."),
  "job": ("{person} est {job/person}.", "{person} travaille comme {job/person}."),
  "works": ("{person} travaille {place}.", "Tous les jours, {person} travaille {place}."),
  "pet": (
    "{person} a {animal:un|une} {animal} {colour/animal}.",
    "{animal:Le|La} {animal} {person.of} est {colour/animal}.",
  ),
  "owns": ("{person} a {thing:un|une} {thing} {colour/thing}.", "{thing:Le|La} {thing} {person.of} est {colour/thing}."),
  "buys": ("{person} achète {number} {goods}.", "{person} achète {number.word} {goods} au marché."),
  "likes": ("{person} aime {food}.", "{person} aime beaucoup {food}."),
  "speaks": ("{person} parle {tongue}.", "À la maison, {person} parle {tongue}."),
  "travels": ("{person} va {city.at} {day}.", "{day}, {person} se rend {city.at}."),
  "kin": ("{person} est {kin.the/person} {other.of}.", "{kin.the/person} {other.of} s'appelle {person}."),
  "does": ("{person} {action} {time}.", "{time}, {person} {action}."),
  "country": ("{city} se trouve {country.in}.", "La ville {city.of} est située {country.in}."),
  "capital": ("{city} est la capitale {country.of}.", "La capitale {country.of} est {city}."),
  "weather": ("{day}, {weather} {city.at}.", "{city.at}, {weather} {day}."),
  "sights": ("Il y a {number} {sight} {city.at}.", "{city} compte {number.word} {sight}."),
  "sleeps": (
    "{animal:Le|La} {animal} {colour/animal} dort {spot}.",
    "{animal:Le|La} {animal} qui dort {spot} est {colour/animal}.",
  ),
}

QUESTIONS = {
  ("lives", "city"): "Où habite {person}\u00a0?",
  ("lives", "person"): "Qui habite {city.at}\u00a0?",
  ("born", "city"): "Où {person} est-{person:il né|elle née}\u00a0?",
  ("year", "year"): "En quelle année {person} est-{person:il né|elle née}\u00a0?",
  ("age", "age"): "Quel âge a {person}\u00a0?",
  ("job", "job"): "Quel est le métier {person.of}\u00a0?",
  ("works", "place"): "Où travaille {person}\u00a0?",
  ("pet", "animal"): "Quel animal possède {person}\u00a0?",
  ("buys", "number"): "Combien {goods.of} achète {person}\u00a0?",
  ("likes", "food"): "Qu'est-ce {person.that} aime\u00a0?",
  ("speaks", "tongue"): "Quelle langue parle {person}\u00a0?",
  ("travels", "city"): "Où va {person} {day}\u00a0?",
  ("travels", "day"): "Quand {person} va-t-{person:il|elle} {city.at}\u00a0?",
  ("kin", "person"): "Qui est {kin.the/person} {other.of}\u00a0?",
  ("country", "country"): "Dans quel pays se trouve {city}\u00a0?",
  ("capital", "city"): "Quelle est la capitale {country.of}\u00a0?",
  ("sights", "number"): "Combien {sight.of} y a-t-il {city.at}\u00a0?",
  ("sleeps", "spot"): "Où dort {animal:le|la} {animal} {colour/animal}\u00a0?",
}
