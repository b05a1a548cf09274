"""Urdu."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = "۔", "؟", " "

WORDS = {
  "person": table("name", """
    anna: اینا; maria: ماریا; sara: سارہ; fatima: فاطمہ; elena: ایلینا; leila: لیلیٰ; amina: امینہ; olga: اولگا
    julia: جولیا; zeynep: زینب; priya: پریا; meiling: میلنگ
    ali: علی; omar: عمر; ivan: ایوان; david: ڈیوڈ; daniel: ڈینیئل; hassan: حسن; viktor: وکٹر; paul: پال
    ravi: روی; mehmet: مہمت; juma: جوما; nikos: نکوس"""),
  "city": table("name", """
    london: لندن; paris: پیرس; berlin: برلن; hamburg: ہیمبرگ; madrid: میڈرڈ; barcelona: بارسلونا
    rome: روم; athens: ایتھنز; sofia: صوفیہ; moscow: ماسکو; istanbul: استنبول; ankara: انقرہ; cairo: قاہرہ
    nairobi: نیروبی; delhi: دہلی; mumbai: ممبئی; karachi: کراچی; beijing: بیجنگ; shanghai: شنگھائی
    bangkok: بنکاک; hanoi: ہنوئی; tokyo: ٹوکیو; new_york: نیویارک"""),
  "country": table("name", """
    uk: برطانیہ; france: فرانس; germany: جرمنی; spain: اسپین; italy: اٹلی; greece: یونان; turkey: ترکیہ
    bulgaria: بلغاریہ; russia: روس; egypt: مصر; kenya: کینیا; india: بھارت; pakistan: پاکستان
    china: چین; thailand: تھائی لینڈ; vietnam: ویتنام; japan: جاپان; usa: امریکہ"""),
  "job": table("m f", """
    teacher: استاد | استانی; doctor: ڈاکٹر | ڈاکٹر; cook: باورچی | باورچی; engineer: انجینئر | انجینئر
    scientist: سائنس دان | سائنس دان; actor: اداکار | اداکارہ; farmer: کسان | کسان; lawyer: وکیل | وکیل
    seller: دکاندار | دکاندار; librarian: لائبریرین | لائبریرین"""),
  "place": table("at", """
    school: [اسکول] میں; hospital: [ہسپتال] میں; restaurant: [ریستوران] میں; factory: [کارخانے] میں
    university: [یونیورسٹی] میں; theatre: [تھیٹر] میں; farm: [فارم] پر; office: [دفتر] میں
    shop: [دکان] میں; library: [لائبریری] میں"""),
  "animal": table("class name", """
    cat: f | بلی; dog: m | کتا; horse: m | گھوڑا; rabbit: m | خرگوش; parrot: m | طوطا; goat: f | بکری
    cow: f | گائے"""),
  "colour": table("m f", """
    black: کالا | کالی; white: سفید | سفید; brown: بھورا | بھوری; grey: سرمئی | سرمئی; red: سرخ | سرخ
    blue: نیلا | نیلی; green: سبز | سبز"""),
  "thing": table("class name", """
    car: f | گاڑی; bicycle: f | سائیکل; bag: m | تھیلا; house: m | گھر; coat: m | کوٹ; umbrella: f | چھتری
    hat: f | ٹوپی"""),
  "goods": table("class many", """
    book: f | کتابیں; apple: m | سیب; egg: m | انڈے; ticket: m | ٹکٹ; pen: m | قلم; flower: m | پھول
    cup: m | پیالے"""),
  "food": table("class name", """
    tea: one | چائے; coffee: one | کافی; bread: one | روٹی; rice: many | چاول; fish: one | مچھلی
    milk: one | دودھ; cheese: one | پنیر; honey: one | شہد"""),
  "tongue": table("name", """
    english: انگریزی; french: فرانسیسی; german: جرمن; spanish: ہسپانوی; russian: روسی; arabic: عربی
    hindi: ہندی; turkish: ترکی; chinese: چینی; swahili: سواحلی; greek: یونانی"""),
  "day": table("on", """
    monday: [پیر] کے دن; tuesday: [منگل] کے دن; wednesday: [بدھ] کے دن; thursday: [جمعرات] کے دن
    friday: [جمعے] کے دن; saturday: [ہفتے] کے دن; sunday: [اتوار] کے دن"""),
  "weather": table("is", """
    hot: گرمی ہے; cold: سردی ہے; rain: بارش ہو رہی ہے; snow: برف باری ہو رہی ہے; sun: دھوپ نکلی ہوئی ہے
    wind: تیز ہوا چل رہی ہے"""),
  "sight": table("many", """
    museum: عجائب گھر; park: پارک; bridge: پل; market: بازار; hotel: ہوٹل; school: اسکول"""),
  "action": table("m f", """
    read: کتاب پڑھتا | کتاب پڑھتی; cook: کھانا پکاتا | کھانا پکاتی
    swim: تیرتا | تیرتی; sing: گانا گاتا | گانا گاتی; dance: رقص کرتا | رقص کرتی
    football: فٹ بال کھیلتا | فٹ بال کھیلتی; music: موسیقی سنتا | موسیقی سنتی
    letters: خط لکھتا | خط لکھتی"""),
  "time": table("in", "morning: [صبح]; afternoon: [سہ پہر] کو; evening: [شام] کو"),
  # With the possessive, which agrees: before a postposition, and (is) with the verb, polite for parents.
  "kin": table("m f is_m is_f", """
    parent: کے [والد] | کی [والدہ] | کے [والد] ہیں | کی [والدہ] ہیں
    child: کے [بیٹے] | کی [بیٹی] | کا [بیٹا] ہے | کی [بیٹی] ہے
    sibling: کے [بھائی] | کی [بہن] | کا [بھائی] ہے | کی [بہن] ہے
    friend: کے [دوست] | کی [دوست] | کا [دوست] ہے | کی [دوست] ہے
    neighbour: کے [پڑوسی] | کی [پڑوسن] | کا [پڑوسی] ہے | کی [پڑوسن] ہے"""),
  "spot": table("in", """
    garden: باغ میں; house: گھر میں; kitchen: باورچی خانے میں; table: میز کے نیچے; door: دروازے کے پاس"""),
  "number": table("word", "3: تین; 4: چار; 5: پانچ; 6: چھ; 7: سات; 8: آٹھ; 9: نو"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} {city} میں {person:رہتا|رہتی} ہے۔", "{person} کا گھر {city} میں ہے۔"),
  "born": ("{person} {city} میں پیدا {person:ہوا|ہوئی}۔", "{person} کی جائے پیدائش {city} ہے۔"),
  "year": ("{person} {year} میں پیدا {person:ہوا|ہوئی}۔", "{person} کی پیدائش کا سال {year} ہے۔"),
  "age": ("{person} کی عمر {age} سال ہے۔", "{person} {age} سال {person:کا|کی} ہے۔"),
  "job": ("{person} {job/person} ہے۔", "{person} بطور {job/person} کام {person:کرتا|کرتی} ہے۔"),
  "works": ("{person} ایک {place} کام {person:کرتا|کرتی} ہے۔", "{person} ہر روز ایک {place} کام {person:کرتا|کرتی} ہے۔"),
  "pet": ("{person} کے پاس ایک {colour/animal} {animal} ہے۔", "{person} {animal:کا|کی} {animal} {colour/animal} ہے۔"),
  "owns": ("{person} کے پاس ایک {colour/thing} {thing} ہے۔", "{person} {thing:کا|کی} {thing} {colour/thing} ہے۔"),
  "buys": (
    "{person} {number} {goods} {person:خریدتا|خریدتی} ہے۔",
    "{person} بازار سے {number.word} {goods} {person:خریدتا|خریدتی} ہے۔",
  ),
  "likes": ("{person} کو {food} پسند {food:ہیں|ہے}۔", "{person} کو {food} بہت پسند {food:ہیں|ہے}۔"),
  "speaks": ("{person} {tongue} {person:بولتا|بولتی} ہے۔", "{person} گھر پر {tongue} {person:بولتا|بولتی} ہے۔"),
  "travels": ("{person} {day} {city} جا {person:رہا|رہی} ہے۔", "{day} {person} {city} کا سفر کر {person:رہا|رہی} ہے۔"),
  "kin": ("{person} {other} {kin.is/person}۔", "{other} {kin/person} کا نام {person} ہے۔"),
  "does": ("{person} {time} {action/person} ہے۔", "{time} {person} {action/person} ہے۔"),
  "country": ("{city} {country} کا ایک شہر ہے۔", "{city} شہر {country} میں واقع ہے۔"),
  "capital": ("{city} {country} کا دارالحکومت ہے۔", "{country} کا دارالحکومت {city} ہے۔"),
  "weather": ("{day} {city} میں {weather}۔", "{city} میں {day} {weather}۔"),
  "sights": ("{city} میں {number} {sight} ہیں۔", "{city} شہر میں کل {number.word} {sight} ہیں۔"),
  "sleeps": (
    "{colour/animal} {animal} {spot} سو {animal:رہا|رہی} ہے۔",
    "{spot} {animal:سویا ہوا|سوئی ہوئی} {animal} {colour/animal} ہے۔",
  ),
}

QUESTIONS = {
  ("lives", "city"): "{person} کہاں {person:رہتا|رہتی} ہے؟",
  ("lives", "person"): "{city} میں کون رہتا ہے؟",
  ("born", "city"): "{person} کہاں پیدا {person:ہوا|ہوئی}؟",
  ("year", "year"): "{person} کس سال پیدا {person:ہوا|ہوئی}؟",
  ("age", "age"): "{person} کی عمر کتنی ہے؟",
  ("job", "job"): "{person} کا پیشہ کیا ہے؟",
  ("works", "place"): "{person} کہاں کام {person:کرتا|کرتی} ہے؟",
  ("pet", "animal"): "{person} کے پاس کون سا جانور ہے؟",
  ("buys", "number"): "{person} {goods:کتنے|کتنی} {goods} {person:خریدتا|خریدتی} ہے؟",
  ("likes", "food"): "{person} کو کیا پسند ہے؟",
  ("speaks", "tongue"): "{person} کون سی زبان {person:بولتا|بولتی} ہے؟",
  ("travels", "city"): "{person} {day} کہاں جا {person:رہا|رہی} ہے؟",
  ("travels", "day"): "{person} {city} کب جا {person:رہا|رہی} ہے؟",
  ("kin", "person"): "{other} {kin/person} کا نام کیا ہے؟",
  ("country", "country"): "{city} کس ملک میں ہے؟",
  ("capital", "city"): "{country} کا دارالحکومت کون سا شہر ہے؟",
  ("sights", "number"): "{city} میں کتنے {sight} ہیں؟",
  ("sleeps", "spot"): "{colour/animal} {animal} کہاں سو {animal:رہا|رہی} ہے؟",
}
