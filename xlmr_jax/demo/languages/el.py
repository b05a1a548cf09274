"""Greek."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", ";", " "

WORDS = {
  # With the article, except "name", which stands after "is called".
  "person": table("nom of to name", """
    anna: η [Άννα] | της [Άννας] | στην [Άννα] | Άννα
    maria: η [Μαρία] | της [Μαρίας] | στη [Μαρία] | Μαρία
    sara: η [Σάρα] | της [Σάρας] | στη [Σάρα] | Σάρα
    fatima: η [Φατίμα] | της [Φατίμα] | στη [Φατίμα] | Φατίμα
    elena: η [Έλενα] | της [Έλενας] | στην [Έλενα] | Έλενα
    leila: η [Λέιλα] | της [Λέιλα] | στη [Λέιλα] | Λέιλα
    amina: η [Αμίνα] | της [Αμίνα] | στην [Αμίνα] | Αμίνα
    olga: η [Όλγα] | της [Όλγας] | στην [Όλγα] | Όλγα
    julia: η [Τζούλια] | της [Τζούλιας] | στην [Τζούλια] | Τζούλια
    zeynep: η [Ζεϊνέπ] | της [Ζεϊνέπ] | στη [Ζεϊνέπ] | Ζεϊνέπ
    priya: η [Πρίγια] | της [Πρίγια] | στην [Πρίγια] | Πρίγια
    meiling: η [Μέιλινγκ] | της [Μέιλινγκ] | στη [Μέιλινγκ] | Μέιλινγκ
    ali: ο [Αλί] | του [Αλί] | στον [Αλί] | Αλί
    omar: ο [Ομάρ] | του [Ομάρ] | στον [Ομάρ] | Ομάρ
    ivan: ο [Ιβάν] | του [Ιβάν] | στον [Ιβάν] | Ιβάν
    david: ο [Δαβίδ] | του [Δαβίδ] | στον [Δαβίδ] | Δαβίδ
    daniel: ο [Δανιήλ] | του [Δανιήλ] | στον [Δανιήλ] | Δανιήλ
    hassan: ο [Χασάν] | του [Χασάν] | στον [Χασάν] | Χασάν
    viktor: ο [Βίκτορας] | του [Βίκτορα] | στον [Βίκτορα] | Βίκτορας
    paul: ο [Παύλος] | του [Παύλου] | στον [Παύλο] | Παύλος
    ravi: ο [Ράβι] | του [Ράβι] | στον [Ράβι] | Ράβι
    mehmet: ο [Μεχμέτ] | του [Μεχμέτ] | στον [Μεχμέτ] | Μεχμέτ
    juma: ο [Τζούμα] | του [Τζούμα] | στον [Τζούμα] | Τζούμα
    nikos: ο [Νίκος] | του [Νίκου] | στον [Νίκο] | Νίκος"""),
  "city": table("nom in from", """
    london: το [Λονδίνο] | στο [Λονδίνο] | από το [Λονδίνο]
    paris: το [Παρίσι] | στο [Παρίσι] | από το [Παρίσι]
    berlin: το [Βερολίνο] | στο [Βερολίνο] | από το [Βερολίνο]
    hamburg: το [Αμβούργο] | στο [Αμβούργο] | από το [Αμβούργο]
    madrid: η [Μαδρίτη] | στη [Μαδρίτη] | από τη [Μαδρίτη]
    barcelona: η [Βαρκελώνη] | στη [Βαρκελώνη] | από τη [Βαρκελώνη]
    rome: η [Ρώμη] | στη [Ρώμη] | από τη [Ρώμη]
    athens: η [Αθήνα] | στην [Αθήνα] | από την [Αθήνα]
    sofia: η [Σόφια] | στη [Σόφια] | από τη [Σόφια]
    moscow: η [Μόσχα] | στη [Μόσχα] | από τη [Μόσχα]
    istanbul: η [Κωνσταντινούπολη] | στην [Κωνσταντινούπολη] | από την [Κωνσταντινούπολη]
    ankara: η [Άγκυρα] | στην [Άγκυρα] | από την [Άγκυρα]
    cairo: το [Κάιρο] | στο [Κάιρο] | από το [Κάιρο]
    nairobi: το [Ναϊρόμπι] | στο [Ναϊρόμπι] | από το [Ναϊρόμπι]
    delhi: το [Δελχί] | στο [Δελχί] | από το [Δελχί]
    mumbai: η [Βομβάη] | στη [Βομβάη] | από τη [Βομβάη]
    karachi: το [Καράτσι] | στο [Καράτσι] | από το [Καράτσι]
    beijing: το [Πεκίνο] | στο [Πεκίνο] | από το [Πεκίνο]
    shanghai: η [Σανγκάη] | στη [Σανγκάη] | από τη [Σανγκάη]
    bangkok: η [Μπανγκόκ] | στην [Μπανγκόκ] | από την [Μπανγκόκ]
    hanoi: το [Ανόι] | στο [Ανόι] | από το [Ανόι]
    tokyo: το [Τόκιο] | στο [Τόκιο] | από το [Τόκιο]
    new_york: η [Νέα Υόρκη] | στη [Νέα Υόρκη] | από τη [Νέα Υόρκη]"""),
  "country": table("in of", """
    uk: στη [Βρετανία] | της [Βρετανίας]; france: στη [Γαλλία] | της [Γαλλίας]
    germany: στη [Γερμανία] | της [Γερμανίας]; spain: στην [Ισπανία] | της [Ισπανίας]
    italy: στην [Ιταλία] | της [Ιταλίας]; greece: στην [Ελλάδα] | της [Ελλάδας]
    turkey: στην [Τουρκία] | της [Τουρκίας]; bulgaria: στη [Βουλγαρία] | της [Βουλγαρίας]
    russia: στη [Ρωσία] | της [Ρωσίας]; egypt: στην [Αίγυπτο] | της [Αιγύπτου]
    kenya: στην [Κένυα] | της [Κένυας]; india: στην [Ινδία] | της [Ινδίας]
    pakistan: στο [Πακιστάν] | του [Πακιστάν]; china: στην [Κίνα] | της [Κίνας]
    thailand: στην [Ταϊλάνδη] | της [Ταϊλάνδης]; vietnam: στο [Βιετνάμ] | του [Βιετνάμ]
    japan: στην [Ιαπωνία] | της [Ιαπωνίας]
    usa: στις [Ηνωμένες Πολιτείες] | των [Ηνωμένων Πολιτειών]"""),
  "job": table("m f", """
    teacher: δάσκαλος | δασκάλα; doctor: γιατρός | γιατρός; cook: μάγειρας | μαγείρισσα
    engineer: μηχανικός | μηχανικός; scientist: επιστήμονας | επιστήμονας; actor: ηθοποιός | ηθοποιός
    farmer: αγρότης | αγρότισσα; lawyer: δικηγόρος | δικηγόρος; seller: πωλητής | πωλήτρια
    librarian: βιβλιοθηκάριος | βιβλιοθηκάριος"""),
  "place": table("in", """
    school: σε [σχολείο]; hospital: σε [νοσοκομείο]; restaurant: σε [εστιατόριο]; factory: σε [εργοστάσιο]
    university: σε [πανεπιστήμιο]; theatre: σε [θέατρο]; farm: σε [αγρόκτημα]; office: σε [γραφείο]
    shop: σε [κατάστημα]; library: σε [βιβλιοθήκη]"""),
  "animal": table("class name acc", """
    cat: f | γάτα | γάτα; dog: m | σκύλος | σκύλο; horse: n | άλογο | άλογο; rabbit: n | κουνέλι | κουνέλι
    parrot: m | παπαγάλος | παπαγάλο; goat: f | κατσίκα | κατσίκα; cow: f | αγελάδα | αγελάδα"""),
  "colour": table("m f n acc_m acc_f acc_n", """
    black: μαύρος | μαύρη | μαύρο | μαύρο | μαύρη | μαύρο
    white: άσπρος | άσπρη | άσπρο | άσπρο | άσπρη | άσπρο
    brown: καφέ | καφέ | καφέ | καφέ | καφέ | καφέ
    grey: γκρίζος | γκρίζα | γκρίζο | γκρίζο | γκρίζα | γκρίζο
    red: κόκκινος | κόκκινη | κόκκινο | κόκκινο | κόκκινη | κόκκινο
    blue: μπλε | μπλε | μπλε | μπλε | μπλε | μπλε
    green: πράσινος | πράσινη | πράσινο | πράσινο | πράσινη | πράσινο"""),
  "thing": table("class name", """
    car: n | αυτοκίνητο; bicycle: n | ποδήλατο; bag: f | τσάντα; house: n | σπίτι; coat: n | παλτό
    umbrella: f | ομπρέλα; hat: n | καπέλο"""),
  # All neuter, as number.n is.
  "goods": table("many", """
    book: βιβλία; apple: μήλα; egg: αυγά; ticket: εισιτήρια; pen: στιλό; flower: λουλούδια
    cup: φλιτζάνια"""),
  "food": table("the", """
    tea: το [τσάι]; coffee: ο [καφές]; bread: το [ψωμί]; rice: το [ρύζι]; fish: το [ψάρι]; milk: το [γάλα]
    cheese: το [τυρί]; honey: το [μέλι]"""),
  "tongue": table("name", """
    english: αγγλικά; french: γαλλικά; german: γερμανικά; spanish: ισπανικά; russian: ρωσικά
    arabic: αραβικά; hindi: χίντι; turkish: τουρκικά; chinese: κινεζικά; swahili: σουαχίλι
    greek: ελληνικά"""),
  "day": table("on", """
    monday: τη [Δευτέρα]; tuesday: την [Τρίτη]; wednesday: την [Τετάρτη]; thursday: την [Πέμπτη]
    friday: την [Παρασκευή]; saturday: το [Σάββατο]; sunday: την [Κυριακή]"""),
  "weather": table("is", """
    hot: κάνει ζέστη; cold: κάνει κρύο; rain: βρέχει; snow: χιονίζει; sun: έχει λιακάδα; wind: φυσάει"""),
  "sight": table("class many", """
    museum: n | μουσεία; park: n | πάρκα; bridge: f | γέφυρες; market: f | αγορές; hotel: n | ξενοδοχεία
    school: n | σχολεία"""),
  "action": table("does", """
    read: διαβάζει ένα βιβλίο; cook: μαγειρεύει; swim: κολυμπάει; sing: τραγουδάει; dance: χορεύει
    football: παίζει ποδόσφαιρο; music: ακούει μουσική; letters: γράφει γράμματα"""),
  "time": table("in", "morning: το πρωί; afternoon: το απόγευμα; evening: το βράδυ"),
  "kin": table("m f the_m the_f", """
    parent: πατέρας | μητέρα | ο [πατέρας] | η [μητέρα]; child: γιος | κόρη | ο [γιος] | η [κόρη]
    sibling: αδελφός | αδελφή | ο [αδελφός] | η [αδελφή]; friend: φίλος | φίλη | ο [φίλος] | η [φίλη]
    neighbour: γείτονας | γειτόνισσα | ο [γείτονας] | η [γειτόνισσα]"""),
  "spot": table("in", """
    garden: στον κήπο; house: στο σπίτι; kitchen: στην κουζίνα; table: κάτω από το τραπέζι
    door: δίπλα στην πόρτα"""),
  "number": table("f n", """
    3: τρεις | τρία; 4: τέσσερις | τέσσερα; 5: πέντε | πέντε; 6: έξι | έξι; 7: εφτά | εφτά; 8: οχτώ | οχτώ
    9: εννιά | εννιά"""),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} μένει {city.in}.", "Το σπίτι {person.of} είναι {city.in}."),
  "born": ("{person} γεννήθηκε {city.in}.", "{person} κατάγεται {city.from}."),
  "year": ("{person} γεννήθηκε το {year}.", "Το έτος γέννησης {person.of} είναι το {year}."),
  "age": ("{person} είναι {age} χρονών.", "Η ηλικία {person.of} είναι {age} έτη."),
  "job": ("{person} είναι {job/person}.", "{person} εργάζεται ως {job/person}."),
  "works": ("{person} εργάζεται {place}.", "Κάθε μέρα {person} δουλεύει {place}."),
  "pet": (
    "{person} έχει {animal:έναν|μια|ένα} {colour.acc/animal} {animal.acc}.",
    "{animal:Ο|Η|Το} {animal} {person.of} είναι {colour/animal}.",
  ),
  "owns": (
    "{person} έχει {thing:μια|ένα} {colour.acc/thing} {thing}.",
    "{thing:Η|Το} {thing} {person.of} είναι {colour/thing}.",
  ),
  "buys": ("{person} αγοράζει {number} {goods}.", "{person} αγοράζει {number.n} {goods} από την αγορά."),
  "likes": ("{person.to} αρέσει {food}.", "{person.to} αρέσει πολύ {food}."),
  "speaks": ("{person} μιλάει {tongue}.", "Στο σπίτι {person} μιλάει {tongue}."),
  "travels": ("{person} πηγαίνει {city.in} {day}.", "{day} {person} ταξιδεύει {city.in}."),
  "kin": ("{person} είναι {kin/person} {other.of}.", "{kin.the/person} {other.of} λέγεται {person.name}."),
  "does": ("{person} {action} {time}.", "{time} {person} {action}."),
  "country": ("{city} είναι πόλη {country.of}.", "{city} βρίσκεται {country}."),
  "capital": ("{city} είναι η πρωτεύουσα {country.of}.", "Η πρωτεύουσα {country.of} είναι {city}."),
  "weather": ("{day} {city.in} {weather}.", "{city.in} {weather} {day}."),
  "sights": ("{city.in} υπάρχουν {number} {sight}.", "{city} έχει {number/sight} {sight}."),
  "sleeps": (
    "{animal:Ο|Η|Το} {colour/animal} {animal} κοιμάται {spot}.",
    "{spot} κοιμάται {animal:ένας|μια|ένα} {colour/animal} {animal}.",
  ),
}

QUESTIONS = {
  ("lives", "city"): "Πού μένει {person};",
  ("lives", "person"): "Ποιος μένει {city.in};",
  ("born", "city"): "Πού γεννήθηκε {person};",
  ("year", "year"): "Ποια χρονιά γεννήθηκε {person};",
  ("age", "age"): "Πόσων χρονών είναι {person};",
  ("job", "job"): "Τι δουλειά κάνει {person};",
  ("works", "place"): "Πού εργάζεται {person};",
  ("pet", "animal"): "Τι ζώο έχει {person};",
  ("buys", "number"): "Πόσα {goods} αγοράζει {person};",
  ("likes", "food"): "Τι αρέσει {person.to};",
  ("speaks", "tongue"): "Ποια γλώσσα μιλάει {person};",
  ("travels", "city"): "Πού πηγαίνει {person} {day};",
  ("travels", "day"): "Πότε πηγαίνει {person} {city.in};",
  ("kin", "person"): "Πώς λέγεται {kin.the/person} {other.of};",
  ("country", "country"): "Σε ποια χώρα βρίσκεται {city};",
  ("capital", "city"): "Ποια είναι η πρωτεύουσα {country.of};",
  ("sights", "number"): "{sight:Πόσες|Πόσα} {sight} υπάρχουν {city.in};",
  ("sleeps", "spot"): "Πού κοιμάται {animal:ο|η|το} {colour/animal} {animal};",
}
