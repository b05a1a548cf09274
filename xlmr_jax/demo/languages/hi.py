"""Hindi."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = "।", "?", " "

WORDS = {
  "person": table("name", """
    anna: अन्ना; maria: मारिया; sara: सारा; fatima: फ़ातिमा; elena: एलेना; leila: लैला; amina: अमीना; olga: ओल्गा
    julia: जूलिया; zeynep: ज़ैनब; priya: प्रिया; meiling: मेइलिंग
    ali: अली; omar: उमर; ivan: इवान; david: डेविड; daniel: डैनियल; hassan: हसन; viktor: विक्टर; paul: पॉल
    ravi: रवि; mehmet: मेहमत; juma: जुमा; nikos: निकोस"""),
  "city": table("name", """
    london: लंदन; paris: पेरिस; berlin: बर्लिन; hamburg: हैम्बर्ग; madrid: मैड्रिड; barcelona: बार्सिलोना
    rome: रोम; athens: एथेंस; sofia: सोफ़िया; moscow: मॉस्को; istanbul: इस्तांबुल; ankara: अंकारा; cairo: काहिरा
    nairobi: नैरोबी; delhi: दिल्ली; mumbai: मुंबई; karachi: कराची; beijing: बीजिंग; shanghai: शंघाई
    bangkok: बैंकॉक; hanoi: हनोई; tokyo: टोक्यो; new_york: न्यूयॉर्क"""),
  "country": table("name", """
    uk: ब्रिटेन; france: फ़्रांस; germany: जर्मनी; spain: स्पेन; italy: इटली; greece: यूनान; turkey: तुर्की
    bulgaria: बुल्गारिया; russia: रूस; egypt: मिस्र; kenya: केन्या; india: भारत; pakistan: पाकिस्तान
    china: चीन; thailand: थाईलैंड; vietnam: वियतनाम; japan: जापान; usa: अमेरिका"""),
  "job": table("m f", """
    teacher: शिक्षक | शिक्षिका; doctor: डॉक्टर | डॉक्टर; cook: बावर्ची | बावर्ची; engineer: इंजीनियर | इंजीनियर
    scientist: वैज्ञानिक | वैज्ञानिक; actor: अभिनेता | अभिनेत्री; farmer: किसान | किसान; lawyer: वकील | वकील
    seller: दुकानदार | दुकानदार; librarian: लाइब्रेरियन | लाइब्रेरियन"""),
  "place": table("at", """
    school: [स्कूल] में; hospital: [अस्पताल] में; restaurant: [रेस्तराँ] में; factory: [कारखाने] में
    university: [विश्वविद्यालय] में; theatre: [थिएटर] में; farm: [फ़ार्म] पर; office: [दफ़्तर] में
    shop: [दुकान] में; library: [पुस्तकालय] में"""),
  "animal": table("class name", """
    cat: f | बिल्ली; dog: m | कुत्ता; horse: m | घोड़ा; rabbit: m | ख़रगोश; parrot: m | तोता; goat: f | बकरी
    cow: f | गाय"""),
  "colour": table("m f", """
    black: काला | काली; white: सफ़ेद | सफ़ेद; brown: भूरा | भूरी; grey: स्लेटी | स्लेटी; red: लाल | लाल
    blue: नीला | नीली; green: हरा | हरी"""),
  "thing": table("class name", """
    car: f | कार; bicycle: f | साइकिल; bag: m | थैला; house: m | घर; coat: m | कोट; umbrella: m | छाता
    hat: f | टोपी"""),
  "goods": table("class many", """
    book: f | किताबें; apple: m | सेब; egg: m | अंडे; ticket: m | टिकट; pen: m | पेन; flower: m | फूल
    cup: m | प्याले"""),
  "food": table("class name", """
    tea: one | चाय; coffee: one | कॉफ़ी; bread: one | रोटी; rice: many | चावल; fish: one | मछली
    milk: one | दूध; cheese: one | पनीर; honey: one | शहद"""),
  "tongue": table("name", """
    english: अंग्रेज़ी; french: फ़्रांसीसी; german: जर्मन; spanish: स्पेनिश; russian: रूसी; arabic: अरबी
    hindi: हिंदी; turkish: तुर्की; chinese: चीनी; swahili: स्वाहिली; greek: यूनानी"""),
  "day": table("on", """
    monday: [सोमवार] को; tuesday: [मंगलवार] को; wednesday: [बुधवार] को; thursday: [गुरुवार] को
    friday: [शुक्रवार] को; saturday: [शनिवार] को; sunday: [रविवार] को"""),
  "weather": table("is", """
    hot: गर्मी है; cold: ठंड है; rain: बारिश हो रही है; snow: बर्फ़ गिर रही है; sun: धूप है
    wind: तेज़ हवा चल रही है"""),
  "sight": table("many", """
    museum: संग्रहालय; park: पार्क; bridge: पुल; market: बाज़ार; hotel: होटल; school: स्कूल"""),
  "action": table("m f", """
    read: किताब पढ़ता | किताब पढ़ती; cook: खाना पकाता | खाना पकाती
    swim: तैरता | तैरती; sing: गाना गाता | गाना गाती; dance: नाचता | नाचती
    football: फ़ुटबॉल खेलता | फ़ुटबॉल खेलती; music: संगीत सुनता | संगीत सुनती
    letters: चिट्ठियाँ लिखता | चिट्ठियाँ लिखती"""),
  "time": table("in", "morning: [सुबह]; afternoon: [दोपहर] में; evening: [शाम] को"),
  # With the possessive, which agrees: before a postposition, and (is) with the verb, polite for parents.
  "kin": table("m f is_m is_f", """
    parent: के [पिता] | की [माँ] | के [पिता] हैं | की [माँ] हैं
    child: के [बेटे] | की [बेटी] | का [बेटा] है | की [बेटी] है
    sibling: के [भाई] | की [बहन] | का [भाई] है | की [बहन] है
    friend: के [दोस्त] | की [दोस्त] | का [दोस्त] है | की [दोस्त] है
    neighbour: के [पड़ोसी] | की [पड़ोसन] | का [पड़ोसी] है | की [पड़ोसन] है"""),
  "spot": table("in", """
    garden: बगीचे में; house: घर में; kitchen: रसोई में; table: मेज़ के नीचे; door: दरवाज़े के पास"""),
  "number": table("word", "3: तीन; 4: चार; 5: पाँच; 6: छह; 7: सात; 8: आठ; 9: नौ"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} {city} में {person:रहता|रहती} है।", "{person} का घर {city} में है।"),
  "born": ("{person} का जन्म {city} में हुआ था।", "{person} का जन्मस्थान {city} है।"),
  "year": ("{person} का जन्म सन् {year} में हुआ था।", "{person} का जन्म वर्ष {year} है।"),
  "age": ("{person} की उम्र {age} साल है।", "{person} {age} साल {person:का|की} है।"),
  "job": ("{person} {job/person} है।", "{person} {job/person} के रूप में काम {person:करता|करती} है।"),
  "works": ("{person} एक {place} काम {person:करता|करती} है।", "{person} हर दिन एक {place} काम {person:करता|करती} है।"),
  "pet": ("{person} के पास एक {colour/animal} {animal} है।", "{person} {animal:का|की} {animal} {colour/animal} है।"),
  "owns": ("{person} के पास एक {colour/thing} {thing} है।", "{person} {thing:का|की} {thing} {colour/thing} है।"),
  "buys": (
    "{person} {number} {goods} {person:ख़रीदता|ख़रीदती} है।",
    "{person} बाज़ार से {number.word} {goods} {person:ख़रीदता|ख़रीदती} है।",
  ),
  "likes": ("{person} को {food} पसंद {food:हैं|है}।", "{person} को {food} बहुत पसंद {food:हैं|है}।"),
  "speaks": ("{person} {tongue} {person:बोलता|बोलती} है।", "{person} घर पर {tongue} {person:बोलता|बोलती} है।"),
  "travels": ("{person} {day} {city} जा {person:रहा|रही} है।", "{day} {person} {city} की यात्रा कर {person:रहा|रही} है।"),
  "kin": ("{person} {other} {kin.is/person}।", "{other} {kin/person} का नाम {person} है।"),
  "does": ("{person} {time} {action/person} है।", "{time} {person} {action/person} है।"),
  "country": ("{city} {country} का एक शहर है।", "{city} शहर {country} में है।"),
  "capital": ("{city} {country} की राजधानी है।", "{country} की राजधानी {city} है।"),
  "weather": ("{day} {city} में {weather}।", "{city} में {day} {weather}।"),
  "sights": ("{city} में {number} {sight} हैं।", "{city} शहर में कुल {number.word} {sight} हैं।"),
  "sleeps": (
    "{colour/animal} {animal} {spot} सो {animal:रहा|रही} है।",
    "{spot} सो {animal:रहा|रही} {animal} {colour/animal} है।",
  ),
}

QUESTIONS = {
  ("lives", "city"): "{person} कहाँ {person:रहता|रहती} है?",
  ("lives", "person"): "{city} में कौन रहता है?",
  ("born", "city"): "{person} का जन्म कहाँ हुआ था?",
  ("year", "year"): "{person} का जन्म किस साल हुआ था?",
  ("age", "age"): "{person} की उम्र कितनी है?",
  ("job", "job"): "{person} का पेशा क्या है?",
  ("works", "place"): "{person} कहाँ काम {person:करता|करती} है?",
  ("pet", "animal"): "{person} के पास कौन सा जानवर है?",
  ("buys", "number"): "{person} {goods:कितने|कितनी} {goods} {person:ख़रीदता|ख़रीदती} है?",
  ("likes", "food"): "{person} को क्या पसंद है?",
  ("speaks", "tongue"): "{person} कौन सी भाषा {person:बोलता|बोलती} है?",
  ("travels", "city"): "{person} {day} कहाँ जा {person:रहा|रही} है?",
  ("travels", "day"): "{person} {city} कब जा {person:रहा|रही} है?",
  ("kin", "person"): "{other} {kin/person} का नाम क्या है?",
  ("country", "country"): "{city} किस देश में है?",
  ("capital", "city"): "{country} की राजधानी क्या है?",
  ("sights", "number"): "{city} में कितने {sight} हैं?",
  ("sleeps", "spot"): "{colour/animal} {animal} कहाँ सो {animal:रहा|रही} है?",
}
