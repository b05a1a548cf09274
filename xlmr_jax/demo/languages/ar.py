"""Arabic. Without short vowels, but for the passive and the nunation that is written."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "؟", " "

WORDS = {
  "person": table("name", """
    anna: آنا; maria: ماريا; sara: سارة; fatima: فاطمة; elena: إيلينا; leila: ليلى; amina: أمينة; olga: أولغا
    julia: جوليا; zeynep: زينب; priya: بريا; meiling: مي لينغ
    ali: علي; omar: عمر; ivan: إيفان; david: ديفيد; daniel: دانيال; hassan: حسن; viktor: فيكتور; paul: بول
    ravi: رافي; mehmet: محمد; juma: جمعة; nikos: نيكوس"""),
  "city": table("name", """
    london: لندن; paris: باريس; berlin: برلين; hamburg: هامبورغ; madrid: مدريد; barcelona: برشلونة
    rome: روما; athens: أثينا; sofia: صوفيا; moscow: موسكو; istanbul: إسطنبول; ankara: أنقرة; cairo: القاهرة
    nairobi: نيروبي; delhi: دلهي; mumbai: مومباي; karachi: كراتشي; beijing: بكين; shanghai: شنغهاي
    bangkok: بانكوك; hanoi: هانوي; tokyo: طوكيو; new_york: نيويورك"""),
  "country": table("name", """
    uk: بريطانيا; france: فرنسا; germany: ألمانيا; spain: إسبانيا; italy: إيطاليا; greece: اليونان
    turkey: تركيا; bulgaria: بلغاريا; russia: روسيا; egypt: مصر; kenya: كينيا; india: الهند
    pakistan: باكستان; china: الصين; thailand: تايلاند; vietnam: فيتنام; japan: اليابان
    usa: الولايات المتحدة"""),
  "job": table("m f acc_m acc_f", """
    teacher: معلم | معلمة | معلمًا | معلمة
    doctor: طبيب | طبيبة | طبيبًا | طبيبة
    cook: طباخ | طباخة | طباخًا | طباخة
    engineer: مهندس | مهندسة | مهندسًا | مهندسة
    scientist: عالم | عالمة | عالمًا | عالمة
    actor: ممثل | ممثلة | ممثلًا | ممثلة
    farmer: مزارع | مزارعة | مزارعًا | مزارعة
    lawyer: محامٍ | محامية | محاميًا | محامية
    seller: بائع | بائعة | بائعًا | بائعة
    librarian: أمين مكتبة | أمينة مكتبة | أمين مكتبة | أمينة مكتبة"""),
  "place": table("at", """
    school: في [مدرسة]; hospital: في [مستشفى]; restaurant: في [مطعم]; factory: في [مصنع]
    university: في [جامعة]; theatre: في [مسرح]; farm: في [مزرعة]; office: في [مكتب]; shop: في [متجر]
    library: في [مكتبة]"""),
  "animal": table("class name the", """
    cat: f | قطة | القطة; dog: m | كلب | الكلب; horse: m | حصان | الحصان; rabbit: m | أرنب | الأرنب
    parrot: m | ببغاء | الببغاء; goat: f | عنزة | العنزة; cow: f | بقرة | البقرة"""),
  "colour": table("m f the_m the_f", """
    black: أسود | سوداء | الأسود | السوداء
    white: أبيض | بيضاء | الأبيض | البيضاء
    brown: بني | بنية | البني | البنية
    grey: رمادي | رمادية | الرمادي | الرمادية
    red: أحمر | حمراء | الأحمر | الحمراء
    blue: أزرق | زرقاء | الأزرق | الزرقاء
    green: أخضر | خضراء | الأخضر | الخضراء"""),
  "thing": table("class name", """
    car: f | سيارة; bicycle: f | دراجة; bag: f | حقيبة; house: m | بيت; coat: m | معطف; umbrella: f | مظلة
    hat: f | قبعة"""),
  # Genitive plural after the numbers from 3 to 9; accusative singular after "how many".
  "goods": table("class many one", """
    book: m | كتب | كتابًا; apple: f | تفاحات | تفاحة; egg: f | بيضات | بيضة; ticket: f | تذاكر | تذكرة
    pen: m | أقلام | قلمًا; flower: f | زهور | زهرة; cup: m | فناجين | فنجانًا"""),
  "food": table("the", """
    tea: الشاي; coffee: القهوة; bread: الخبز; rice: الأرز; fish: السمك; milk: الحليب; cheese: الجبن
    honey: العسل"""),
  "tongue": table("the", """
    english: الإنجليزية; french: الفرنسية; german: الألمانية; spanish: الإسبانية; russian: الروسية
    arabic: العربية; hindi: الهندية; turkish: التركية; chinese: الصينية; swahili: السواحلية
    greek: اليونانية"""),
  "day": table("on", """
    monday: يوم [الاثنين]; tuesday: يوم [الثلاثاء]; wednesday: يوم [الأربعاء]; thursday: يوم [الخميس]
    friday: يوم [الجمعة]; saturday: يوم [السبت]; sunday: يوم [الأحد]"""),
  "weather": table("is acc", """
    hot: حار | حارًا; cold: بارد | باردًا; rain: ممطر | ممطرًا; snow: مثلج | مثلجًا; sun: مشمس | مشمسًا
    wind: عاصف | عاصفًا"""),
  "sight": table("class many one", """
    museum: m | متاحف | متحفًا; park: f | حدائق | حديقة; bridge: m | جسور | جسرًا; market: f | أسواق | سوقًا
    hotel: m | فنادق | فندقًا; school: f | مدارس | مدرسة"""),
  "action": table("m f", """
    read: يقرأ كتابًا | تقرأ كتابًا; cook: يطبخ الطعام | تطبخ الطعام; swim: يسبح | تسبح; sing: يغني | تغني
    dance: يرقص | ترقص; football: يلعب كرة القدم | تلعب كرة القدم
    music: يستمع إلى الموسيقى | تستمع إلى الموسيقى; letters: يكتب الرسائل | تكتب الرسائل"""),
  "time": table("in each", """
    morning: في الصباح | كل صباح; afternoon: بعد الظهر | بعد ظهر كل يوم; evening: في المساء | كل مساء"""),
  "kin": table("m f", """
    parent: والد | والدة; child: ابن | ابنة; sibling: شقيق | شقيقة; friend: صديق | صديقة
    neighbour: جار | جارة"""),
  "spot": table("in", """
    garden: في الحديقة; house: في البيت; kitchen: في المطبخ; table: تحت الطاولة; door: بجانب الباب"""),
  # By the gender of what is counted.
  "number": table("m f", """
    3: ثلاثة | ثلاث; 4: أربعة | أربع; 5: خمسة | خمس; 6: ستة | ست; 7: سبعة | سبع; 8: ثمانية | ثماني
    9: تسعة | تسع"""),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person:يعيش|تعيش} {person} في {city}.", "يقع بيت {person} في {city}."),
  "born": ("{person:وُلد|وُلدت} {person} في {city}.", "مسقط رأس {person} هو مدينة {city}."),
  "year": ("{person:وُلد|وُلدت} {person} عام {year}.", "سنة ميلاد {person} هي {year}."),
  "age": ("{person:يبلغ|تبلغ} {person} من العمر {age} عامًا.", "{person} {person:عمره|عمرها} {age} سنة."),
  "job": ("{person} {job/person}.", "{person:يعمل|تعمل} {person} {job.acc/person}."),
  "works": ("{person:يعمل|تعمل} {person} {place}.", "{person:يعمل|تعمل} {person} كل يوم {place}."),
  "pet": ("لدى {person} {animal} {colour/animal}.", "{animal} {person} {colour/animal}."),
  "owns": ("لدى {person} {thing} {colour/thing}.", "{thing} {person} {colour/thing}."),
  "buys": (
    "{person:يشتري|تشتري} {person} {number} {goods}.",
    "{person:يشتري|تشتري} {person} من السوق {number/goods} {goods}.",
  ),
  "likes": ("{person:يحب|تحب} {person} {food}.", "{person:يحب|تحب} {person} {food} كثيرًا."),
  "speaks": ("{person:يتحدث|تتحدث} {person} اللغة {tongue}.", "{person:يتحدث|تتحدث} {person} {tongue} في البيت."),
  "travels": ("{person:يسافر|تسافر} {person} إلى {city} {day}.", "{day} {person:يذهب|تذهب} {person} إلى {city}."),
  "kin": ("{person} {person:هو|هي} {kin/person} {other}.", "{kin/person} {other} {person:هو|هي} {person}."),
  "does": ("{person} {action/person} {time}.", "{person} {action/person} {time.each}."),
  "country": ("{city} مدينة في {country}.", "تقع مدينة {city} في {country}."),
  "capital": ("{city} هي عاصمة {country}.", "عاصمة {country} هي {city}."),
  "weather": ("الطقس {weather} في {city} {day}.", "{day} يكون الطقس في {city} {weather.acc}."),
  "sights": ("في {city} {number} {sight}.", "تضم مدينة {city} {number/sight} {sight}."),
  "sleeps": (
    "{animal:ينام|تنام} {animal.the} {colour.the/animal} {spot}.",
    "{animal.the} {animal:النائم|النائمة} {spot} {colour/animal}.",
  ),
}

QUESTIONS = {
  ("lives", "city"): "أين {person:يعيش|تعيش} {person}؟",
  ("lives", "person"): "من يعيش في {city}؟",
  ("born", "city"): "أين {person:وُلد|وُلدت} {person}؟",
  ("year", "year"): "في أي عام {person:وُلد|وُلدت} {person}؟",
  ("age", "age"): "كم {person:يبلغ|تبلغ} {person} من العمر؟",
  ("job", "job"): "ما مهنة {person}؟",
  ("works", "place"): "أين {person:يعمل|تعمل} {person}؟",
  ("pet", "animal"): "أي حيوان لدى {person}؟",
  ("buys", "number"): "كم {goods.one} {person:يشتري|تشتري} {person}؟",
  ("likes", "food"): "ماذا {person:يحب|تحب} {person}؟",
  ("speaks", "tongue"): "أي لغة {person:يتحدث|تتحدث} {person}؟",
  ("travels", "city"): "إلى أين {person:يسافر|تسافر} {person} {day}؟",
  ("travels", "day"): "متى {person:يسافر|تسافر} {person} إلى {city}؟",
  ("kin", "person"): "من {person:هو|هي} {kin/person} {other}؟",
  ("country", "country"): "في أي بلد تقع مدينة {city}؟",
  ("capital", "city"): "ما عاصمة {country}؟",
  ("sights", "number"): "كم {sight.one} في مدينة {city}؟",
  ("sleeps", "spot"): "أين {animal:ينام|تنام} {animal.the} {colour.the/animal}؟",
}
