"""Thai: no spaces between words, no full stop and no question mark; a space ends a sentence."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = "", "", " "

WORDS = {
  "person": table("name", """
    anna: อันนา; maria: มาเรีย; sara: ซารา; fatima: ฟาติมา; elena: เอเลนา; leila: ไลลา; amina: อามีนา
    olga: โอลกา; julia: จูเลีย; zeynep: เซย์เนป; priya: ปรียา; meiling: เหม่ยหลิง
    ali: อาลี; omar: โอมาร์; ivan: อีวาน; david: เดวิด; daniel: แดเนียล; hassan: ฮัสซัน; viktor: วิกเตอร์
    paul: พอล; ravi: ราวี; mehmet: เมห์เม็ต; juma: จูมา; nikos: นิคอส"""),
  "city": table("name", """
    london: ลอนดอน; paris: ปารีส; berlin: เบอร์ลิน; hamburg: ฮัมบูร์ก; madrid: มาดริด
    barcelona: บาร์เซโลนา; rome: โรม; athens: เอเธนส์; sofia: โซเฟีย; moscow: มอสโก; istanbul: อิสตันบูล
    ankara: อังการา; cairo: ไคโร; nairobi: ไนโรบี; delhi: เดลี; mumbai: มุมไบ; karachi: การาจี
    beijing: ปักกิ่ง; shanghai: เซี่ยงไฮ้; bangkok: กรุงเทพมหานคร; hanoi: ฮานอย; tokyo: โตเกียว
    new_york: นิวยอร์ก"""),
  "country": table("name", """
    uk: [สหราชอาณาจักร]; france: ประเทศ[ฝรั่งเศส]; germany: ประเทศ[เยอรมนี]; spain: ประเทศ[สเปน]
    italy: ประเทศ[อิตาลี]; greece: ประเทศ[กรีซ]; turkey: ประเทศ[ตุรกี]; bulgaria: ประเทศ[บัลแกเรีย]
    russia: ประเทศ[รัสเซีย]; egypt: ประเทศ[อียิปต์]; kenya: ประเทศ[เคนยา]; india: ประเทศ[อินเดีย]
    pakistan: ประเทศ[ปากีสถาน]; china: ประเทศ[จีน]; thailand: ประเทศ[ไทย]; vietnam: ประเทศ[เวียดนาม]
    japan: ประเทศ[ญี่ปุ่น]; usa: [สหรัฐอเมริกา]"""),
  "job": table("name", """
    teacher: ครู; doctor: แพทย์; cook: เชฟ; engineer: วิศวกร; scientist: นักวิทยาศาสตร์; actor: นักแสดง
    farmer: เกษตรกร; lawyer: ทนายความ; seller: พนักงานขาย; librarian: บรรณารักษ์"""),
  "place": table("name", """
    school: โรงเรียน; hospital: โรงพยาบาล; restaurant: ร้านอาหาร; factory: โรงงาน; university: มหาวิทยาลัย
    theatre: โรงละคร; farm: ฟาร์ม; office: สำนักงาน; shop: ร้านค้า; library: ห้องสมุด"""),
  # The classifier of all of them is ตัว.
  "animal": table("name", """
    cat: แมว; dog: สุนัข; horse: ม้า; rabbit: กระต่าย; parrot: นกแก้ว; goat: แพะ; cow: วัว"""),
  "colour": table("name", """
    black: สีดำ; white: สีขาว; brown: สีน้ำตาล; grey: สีเทา; red: สีแดง; blue: สีน้ำเงิน; green: สีเขียว"""),
  "thing": table("name classifier", """
    car: รถยนต์ | คัน; bicycle: จักรยาน | คัน; bag: กระเป๋า | ใบ; house: บ้าน | หลัง; coat: เสื้อโค้ต | ตัว
    umbrella: ร่ม | คัน; hat: หมวก | ใบ"""),
  "goods": table("name classifier", """
    book: หนังสือ | เล่ม; apple: แอปเปิล | ผล; egg: ไข่ไก่ | ฟอง; ticket: ตั๋ว | ใบ; pen: ปากกา | ด้าม
    flower: ดอกไม้ | ดอก; cup: ถ้วย | ใบ"""),
  "food": table("name", """
    tea: ชา; coffee: กาแฟ; bread: ขนมปัง; rice: ข้าว; fish: ปลา; milk: นม; cheese: ชีส; honey: น้ำผึ้ง"""),
  "tongue": table("name", """
    english: ภาษาอังกฤษ; french: ภาษาฝรั่งเศส; german: ภาษาเยอรมัน; spanish: ภาษาสเปน; russian: ภาษารัสเซีย
    arabic: ภาษาอาหรับ; hindi: ภาษาฮินดี; turkish: ภาษาตุรกี; chinese: ภาษาจีน; swahili: ภาษาสวาฮีลี
    greek: ภาษากรีก"""),
  "day": table("name", """
    monday: วันจันทร์; tuesday: วันอังคาร; wednesday: วันพุธ; thursday: วันพฤหัสบดี; friday: วันศุกร์
    saturday: วันเสาร์; sunday: วันอาทิตย์"""),
  "weather": table("is", """
    hot: อากาศร้อน; cold: อากาศหนาว; rain: ฝนตก; snow: หิมะตก; sun: แดดออก; wind: ลมแรง"""),
  # The classifier of all of them is แห่ง.
  "sight": table("name", """
    museum: พิพิธภัณฑ์; park: สวนสาธารณะ; bridge: สะพาน; market: ตลาด; hotel: โรงแรม; school: โรงเรียน"""),
  "action": table("does", """
    read: อ่านหนังสือ; cook: ทำอาหาร; swim: ว่ายน้ำ; sing: ร้องเพลง; dance: เต้นรำ; football: เล่นฟุตบอล
    music: ฟังเพลง; letters: เขียนจดหมาย"""),
  "time": table("name", "morning: ตอนเช้า; afternoon: ตอนบ่าย; evening: ตอนเย็น"),
  "kin": table("m f", """
    parent: พ่อ | แม่; child: ลูกชาย | ลูกสาว; sibling: พี่ชาย | พี่สาว; friend: เพื่อน | เพื่อน
    neighbour: เพื่อนบ้าน | เพื่อนบ้าน"""),
  "spot": table("in", "garden: ในสวน; house: ในบ้าน; kitchen: ในครัว; table: ใต้โต๊ะ; door: ข้างประตู"),
  "number": table("word", "3: สาม; 4: สี่; 5: ห้า; 6: หก; 7: เจ็ด; 8: แปด; 9: เก้า"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person}อาศัยอยู่ที่{city}", "บ้านของ{person}อยู่ที่{city}"),
  "born": ("{person}เกิดที่{city}", "{person}มาจาก{city}"),
  "year": ("{person}เกิดเมื่อปี {year}", "ปีเกิดของ{person}คือปี {year}"),
  "age": ("{person}อายุ {age} ปี", "ปีนี้{person}มีอายุ {age} ปี"),
  "job": ("{person}เป็น{job}", "{person}มีอาชีพเป็น{job}"),
  "works": ("{person}ทำงานที่{place}", "{person}ไปทำงานที่{place}ทุกวัน"),
  "pet": ("{person}มี{animal}{colour}หนึ่งตัว", "{animal}ของ{person}มี{colour}"),
  "owns": ("{person}มี{thing}{colour}หนึ่ง{thing.classifier}", "{thing}ของ{person}มี{colour}"),
  "buys": ("{person}ซื้อ{goods} {number} {goods.classifier}", "{person}ซื้อ{goods}{number.word}{goods.classifier}ที่ตลาด"),
  "likes": ("{person}ชอบ{food}", "{person}ชอบ{food}มาก"),
  "speaks": ("{person}พูด{tongue}", "{person}พูด{tongue}ที่บ้าน"),
  "travels": ("{person}จะเดินทางไป{city}ใน{day}", "{day}นี้{person}จะไป{city}"),
  "kin": ("{person}เป็น{kin/person}ของ{other}", "{kin/person}ของ{other}ชื่อ{person}"),
  "does": ("{person}{action}ใน{time}", "{time}{person}{action}"),
  "country": ("{city}เป็นเมืองใน{country}", "{city}ตั้งอยู่ใน{country}"),
  "capital": ("{city}เป็นเมืองหลวงของ{country}", "เมืองหลวงของ{country}คือ{city}"),
  "weather": ("{day}ที่{city}{weather}", "ที่{city}{weather}ใน{day}"),
  "sights": ("{city}มี{sight} {number} แห่ง", "ใน{city}มี{sight}{number.word}แห่ง"),
  "sleeps": ("{animal}{colour}นอนหลับอยู่{spot}", "มี{animal}{colour}ตัวหนึ่งกำลังนอนหลับ{spot}"),
}

QUESTIONS = {
  ("lives", "city"): "{person}อาศัยอยู่ที่ไหน",
  ("lives", "person"): "ใครอาศัยอยู่ที่{city}",
  ("born", "city"): "{person}เกิดที่ไหน",
  ("year", "year"): "{person}เกิดเมื่อปีใด",
  ("age", "age"): "{person}อายุเท่าไร",
  ("job", "job"): "{person}มีอาชีพอะไร",
  ("works", "place"): "{person}ทำงานที่ไหน",
  ("pet", "animal"): "{person}มีสัตว์เลี้ยงอะไร",
  ("buys", "number"): "{person}ซื้อ{goods}กี่{goods.classifier}",
  ("likes", "food"): "{person}ชอบอะไร",
  ("speaks", "tongue"): "{person}พูดภาษาอะไร",
  ("travels", "city"): "{person}จะเดินทางไปที่ไหนใน{day}",
  ("travels", "day"): "{person}จะเดินทางไป{city}ในวันไหน",
  ("kin", "person"): "ใครเป็น{kin/person}ของ{other}",
  ("country", "country"): "{city}อยู่ในประเทศอะไร",
  ("capital", "city"): "เมืองหลวงของ{country}คือเมืองอะไร",
  ("sights", "number"): "{city}มี{sight}กี่แห่ง",
  ("sleeps", "spot"): "{animal}{colour}นอนหลับอยู่ที่ไหน",
}
