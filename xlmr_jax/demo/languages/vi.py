"""Vietnamese."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = ".", "?", " "

WORDS = {
  "person": table("name", """
    anna: Anna; maria: Maria; sara: Sara; fatima: Fatima; elena: Elena; leila: Leila; amina: Amina
    olga: Olga; julia: Julia; zeynep: Zeynep; priya: Priya; meiling: Mỹ Linh
    ali: Ali; omar: Omar; ivan: Ivan; david: David; daniel: Daniel; hassan: Hassan; viktor: Viktor
    paul: Paul; ravi: Ravi; mehmet: Mehmet; juma: Juma; nikos: Nikos"""),
  "city": table("name", """
    london: Luân Đôn; paris: Paris; berlin: Berlin; hamburg: Hamburg; madrid: Madrid; barcelona: Barcelona
    rome: Roma; athens: Athens; sofia: Sofia; moscow: Mát-xcơ-va; istanbul: Istanbul; ankara: Ankara
    cairo: Cairo; nairobi: Nairobi; delhi: Delhi; mumbai: Mumbai; karachi: Karachi; beijing: Bắc Kinh
    shanghai: Thượng Hải; bangkok: Băng Cốc; hanoi: Hà Nội; tokyo: Tokyo; new_york: New York"""),
  "country": table("name", """
    uk: Anh; france: Pháp; germany: Đức; spain: Tây Ban Nha; italy: Ý; greece: Hy Lạp; turkey: Thổ Nhĩ Kỳ
    bulgaria: Bulgaria; russia: Nga; egypt: Ai Cập; kenya: Kenya; india: Ấn Độ; pakistan: Pakistan
    china: Trung Quốc; thailand: Thái Lan; vietnam: Việt Nam; japan: Nhật Bản; usa: Hoa Kỳ"""),
  "job": table("name", """
    teacher: giáo viên; doctor: bác sĩ; cook: đầu bếp; engineer: kỹ sư; scientist: nhà khoa học
    actor: diễn viên; farmer: nông dân; lawyer: luật sư; seller: nhân viên bán hàng; librarian: thủ thư"""),
  "place": table("name", """
    school: trường học; hospital: bệnh viện; restaurant: nhà hàng; factory: nhà máy
    university: trường đại học; theatre: nhà hát; farm: trang trại; office: văn phòng; shop: cửa hàng
    library: thư viện"""),
  # The classifier of all of them is con.
  "animal": table("name", "cat: mèo; dog: chó; horse: ngựa; rabbit: thỏ; parrot: vẹt; goat: dê; cow: bò"),
  "colour": table("name", """
    black: màu đen; white: màu trắng; brown: màu nâu; grey: màu xám; red: màu đỏ; blue: màu xanh dương
    green: màu xanh lá cây"""),
  "thing": table("one", """
    car: chiếc [ô tô]; bicycle: chiếc [xe đạp]; bag: chiếc [túi xách]; house: ngôi [nhà]
    coat: chiếc [áo khoác]; umbrella: chiếc [ô]; hat: chiếc [mũ]"""),
  "goods": table("one", """
    book: quyển [sách]; apple: quả [táo]; egg: quả [trứng]; ticket: tấm [vé]; pen: cây [bút]
    flower: bông [hoa]; cup: chiếc [cốc]"""),
  "food": table("name", """
    tea: trà; coffee: cà phê; bread: bánh mì; rice: cơm; fish: cá; milk: sữa; cheese: phô mai
    honey: mật ong"""),
  "tongue": table("name", """
    english: tiếng Anh; french: tiếng Pháp; german: tiếng Đức; spanish: tiếng Tây Ban Nha
    russian: tiếng Nga; arabic: tiếng Ả Rập; hindi: tiếng Hindi; turkish: tiếng Thổ Nhĩ Kỳ
    chinese: tiếng Trung; swahili: tiếng Swahili; greek: tiếng Hy Lạp"""),
  "day": table("on", """
    monday: vào [thứ Hai]; tuesday: vào [thứ Ba]; wednesday: vào [thứ Tư]; thursday: vào [thứ Năm]
    friday: vào [thứ Sáu]; saturday: vào [thứ Bảy]; sunday: vào [Chủ nhật]"""),
  "weather": table("is", """
    hot: trời nóng; cold: trời lạnh; rain: trời mưa; snow: trời có tuyết; sun: trời nắng
    wind: trời có gió"""),
  "sight": table("count", """
    museum: bảo tàng; park: công viên; bridge: cây [cầu]; market: khu [chợ]; hotel: khách sạn
    school: trường học"""),
  "action": table("does", """
    read: đọc sách; cook: nấu ăn; swim: bơi; sing: hát; dance: khiêu vũ; football: chơi bóng đá
    music: nghe nhạc; letters: viết thư"""),
  "time": table("in", "morning: vào buổi sáng; afternoon: vào buổi chiều; evening: vào buổi tối"),
  "kin": table("m f", """
    parent: bố | mẹ; child: con trai | con gái; sibling: anh trai | chị gái; friend: bạn | bạn
    neighbour: hàng xóm | hàng xóm"""),
  "spot": table("in", """
    garden: trong vườn; house: trong nhà; kitchen: trong bếp; table: dưới gầm bàn; door: cạnh cửa"""),
  "number": table("word", "3: ba; 4: bốn; 5: năm; 6: sáu; 7: bảy; 8: tám; 9: chín"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person} sống ở {city}.", "Nhà của {person} ở {city}."),
  "born": ("{person} sinh ra ở {city}.", "{person} đến từ {city}."),
  "year": ("{person} sinh năm {year}.", "Năm sinh của {person} là {year}."),
  "age": ("{person} {age} tuổi.", "Năm nay {person} {age} tuổi."),
  "job": ("{person} là {job}.", "Nghề nghiệp của {person} là {job}."),
  "works": ("{person} làm việc ở {place}.", "Hằng ngày {person} làm việc ở {place}."),
  "pet": ("{person} có một con {animal} {colour}.", "Con {animal} của {person} có {colour}."),
  "owns": ("{person} có một {thing} {colour}.", "{thing} của {person} có {colour}."),
  "buys": ("{person} mua {number} {goods}.", "{person} mua {number.word} {goods} ở chợ."),
  "likes": ("{person} thích {food}.", "{person} rất thích {food}."),
  "speaks": ("{person} nói {tongue}.", "Ở nhà, {person} nói {tongue}."),
  "travels": ("{person} sẽ đi {city} {day}.", "{day}, {person} sẽ đi {city}."),
  "kin": ("{person} là {kin/person} của {other}.", "{kin/person} của {other} tên là {person}."),
  "does": ("{person} {action} {time}.", "{time}, {person} {action}."),
  "country": ("{city} là một thành phố ở {country}.", "Thành phố {city} nằm ở {country}."),
  "capital": ("{city} là thủ đô của {country}.", "Thủ đô của {country} là {city}."),
  "weather": ("{day}, ở {city} {weather}.", "Ở {city}, {weather} {day}."),
  "sights": ("Ở {city} có {number} {sight}.", "{city} có {number.word} {sight}."),
  "sleeps": ("Con {animal} {colour} đang ngủ {spot}.", "Có một con {animal} {colour} đang ngủ {spot}."),
}

QUESTIONS = {
  ("lives", "city"): "{person} sống ở đâu?",
  ("lives", "person"): "Ai sống ở {city}?",
  ("born", "city"): "{person} sinh ra ở đâu?",
  ("year", "year"): "{person} sinh năm nào?",
  ("age", "age"): "{person} bao nhiêu tuổi?",
  ("job", "job"): "{person} làm nghề gì?",
  ("works", "place"): "{person} làm việc ở đâu?",
  ("pet", "animal"): "{person} nuôi con vật gì?",
  ("buys", "number"): "{person} mua mấy {goods}?",
  ("likes", "food"): "{person} thích gì?",
  ("speaks", "tongue"): "{person} nói tiếng gì?",
  ("travels", "city"): "{person} sẽ đi đâu {day}?",
  ("travels", "day"): "Khi nào {person} sẽ đi {city}?",
  ("kin", "person"): "Ai là {kin/person} của {other}?",
  ("country", "country"): "{city} nằm ở nước nào?",
  ("capital", "city"): "Thủ đô của {country} là thành phố nào?",
  ("sights", "number"): "{city} có mấy {sight}?",
  ("sleeps", "spot"): "Con {animal} {colour} đang ngủ ở đâu?",
}
