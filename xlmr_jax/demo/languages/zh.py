"""Chinese, in simplified characters, without spaces."""

from xlmr_jax.demo.lexicon import table

STOP, QUESTION_MARK, SPACE = "。", "？", ""

WORDS = {
  "person": table("name", """
    anna: 安娜; maria: 玛丽亚; sara: 萨拉; fatima: 法蒂玛; elena: 埃琳娜; leila: 莱拉; amina: 阿米娜
    olga: 奥尔加; julia: 朱莉娅; zeynep: 泽伊内普; priya: 普里娅; meiling: 美玲
    ali: 阿里; omar: 奥马尔; ivan: 伊万; david: 大卫; daniel: 丹尼尔; hassan: 哈桑; viktor: 维克托
    paul: 保罗; ravi: 拉维; mehmet: 梅赫梅特; juma: 朱马; nikos: 尼科斯"""),
  "city": table("name", """
    london: 伦敦; paris: 巴黎; berlin: 柏林; hamburg: 汉堡; madrid: 马德里; barcelona: 巴塞罗那
    rome: 罗马; athens: 雅典; sofia: 索非亚; moscow: 莫斯科; istanbul: 伊斯坦布尔; ankara: 安卡拉
    cairo: 开罗; nairobi: 内罗毕; delhi: 德里; mumbai: 孟买; karachi: 卡拉奇; beijing: 北京
    shanghai: 上海; bangkok: 曼谷; hanoi: 河内; tokyo: 东京; new_york: 纽约"""),
  "country": table("name", """
    uk: 英国; france: 法国; germany: 德国; spain: 西班牙; italy: 意大利; greece: 希腊; turkey: 土耳其
    bulgaria: 保加利亚; russia: 俄罗斯; egypt: 埃及; kenya: 肯尼亚; india: 印度; pakistan: 巴基斯坦
    china: 中国; thailand: 泰国; vietnam: 越南; japan: 日本; usa: 美国"""),
  "job": table("name", """
    teacher: 教师; doctor: 医生; cook: 厨师; engineer: 工程师; scientist: 科学家; actor: 演员; farmer: 农民
    lawyer: 律师; seller: 售货员; librarian: 图书管理员"""),
  "place": table("name", """
    school: 学校; hospital: 医院; restaurant: 餐厅; factory: 工厂; university: 大学; theatre: 剧院
    farm: 农场; office: 办公室; shop: 商店; library: 图书馆"""),
  # The class is the measure word, here and in "thing": it stands before the noun and is not part of it.
  "animal": table("class name", """
    cat: 只 | 猫; dog: 只 | 狗; horse: 匹 | 马; rabbit: 只 | 兔子; parrot: 只 | 鹦鹉; goat: 只 | 山羊
    cow: 头 | 牛"""),
  "colour": table("name", """
    black: 黑色; white: 白色; brown: 棕色; grey: 灰色; red: 红色; blue: 蓝色; green: 绿色"""),
  "thing": table("class name", """
    car: 辆 | 汽车; bicycle: 辆 | 自行车; bag: 个 | 包; house: 栋 | 房子; coat: 件 | 大衣
    umbrella: 把 | 雨伞; hat: 顶 | 帽子"""),
  "goods": table("one", """
    book: 本[书]; apple: 个[苹果]; egg: 个[鸡蛋]; ticket: 张[票]; pen: 支[笔]; flower: 朵[花]
    cup: 个[杯子]"""),
  # The class is the verb: what one eats, what one drinks.
  "food": table("class name", """
    tea: 喝 | 茶; coffee: 喝 | 咖啡; bread: 吃 | 面包; rice: 吃 | 米饭; fish: 吃 | 鱼; milk: 喝 | 牛奶
    cheese: 吃 | 奶酪; honey: 吃 | 蜂蜜"""),
  "tongue": table("name", """
    english: 英语; french: 法语; german: 德语; spanish: 西班牙语; russian: 俄语; arabic: 阿拉伯语
    hindi: 印地语; turkish: 土耳其语; chinese: 汉语; swahili: 斯瓦希里语; greek: 希腊语"""),
  "day": table("name", """
    monday: 星期一; tuesday: 星期二; wednesday: 星期三; thursday: 星期四; friday: 星期五; saturday: 星期六
    sunday: 星期日"""),
  "weather": table("is", """
    hot: 天气很热; cold: 天气很冷; rain: 下雨; snow: 下雪; sun: 是晴天; wind: 刮风"""),
  "sight": table("one", """
    museum: 座[博物馆]; park: 个[公园]; bridge: 座[桥]; market: 个[市场]; hotel: 家[酒店]
    school: 所[学校]"""),
  "action": table("does", """
    read: 看书; cook: 做饭; swim: 游泳; sing: 唱歌; dance: 跳舞; football: 踢足球; music: 听音乐
    letters: 写信"""),
  "time": table("in", "morning: 早上; afternoon: 下午; evening: 晚上"),
  "kin": table("m f", """
    parent: 父亲 | 母亲; child: 儿子 | 女儿; sibling: 哥哥 | 姐姐; friend: 朋友 | 朋友
    neighbour: 邻居 | 邻居"""),
  "spot": table("in", "garden: 花园里; house: 屋里; kitchen: 厨房里; table: 桌子底下; door: 门边"),
  "number": table("word", "3: 三; 4: 四; 5: 五; 6: 六; 7: 七; 8: 八; 9: 九"),
}  # fmt: skip

PATTERNS = {
  "lives": ("{person}住在{city}。", "{person}的家在{city}。"),
  "born": ("{person}出生在{city}。", "{person}来自{city}。"),
  "year": ("{person}出生于{year}年。", "{person}是{year}年出生的。"),
  "age": ("{person}今年{age}岁。", "{person}的年龄是{age}岁。"),
  "job": ("{person}是一名{job}。", "{person}的职业是{job}。"),
  "works": ("{person}在{place}工作。", "{person}每天在{place}上班。"),
  "pet": ("{person}有一{animal:匹|只|头}{colour}的{animal}。", "{person}的{animal}是{colour}的。"),
  "owns": ("{person}有一{thing:个|件|把|栋|辆|顶}{colour}的{thing}。", "{person}的{thing}是{colour}的。"),
  "buys": ("{person}买了{number}{goods}。", "{person}在市场上买了{number.word}{goods}。"),
  "likes": ("{person}喜欢{food:吃|喝}{food}。", "{person}非常喜欢{food:吃|喝}{food}。"),
  "speaks": ("{person}说{tongue}。", "{person}在家说{tongue}。"),
  "travels": ("{person}{day}去{city}。", "{day}，{person}要去{city}。"),
  "kin": ("{person}是{other}的{kin/person}。", "{other}的{kin/person}叫{person}。"),
  "does": ("{person}{time}{action}。", "{time}，{person}{action}。"),
  "country": ("{city}是{country}的一座城市。", "{city}位于{country}。"),
  "capital": ("{city}是{country}的首都。", "{country}的首都是{city}。"),
  "weather": ("{day}，{city}{weather}。", "{city}{day}{weather}。"),
  "sights": ("{city}有{number}{sight}。", "{city}一共有{number.word}{sight}。"),
  "sleeps": ("那{animal:匹|只|头}{colour}的{animal}正在{spot}睡觉。", "有一{animal:匹|只|头}{colour}的{animal}睡在{spot}。"),
}

QUESTIONS = {
  ("lives", "city"): "{person}住在哪里？",
  ("lives", "person"): "谁住在{city}？",
  ("born", "city"): "{person}出生在哪里？",
  ("year", "year"): "{person}是哪一年出生的？",
  ("age", "age"): "{person}今年多大？",
  ("job", "job"): "{person}的职业是什么？",
  ("works", "place"): "{person}在哪里工作？",
  ("pet", "animal"): "{person}有什么动物？",
  ("buys", "number"): "{person}买了几{goods}？",
  ("likes", "food"): "{person}喜欢什么？",
  ("speaks", "tongue"): "{person}说什么语言？",
  ("travels", "city"): "{person}{day}去哪里？",
  ("travels", "day"): "{person}星期几去{city}？",
  ("kin", "person"): "{other}的{kin/person}叫什么名字？",
  ("country", "country"): "{city}位于哪个国家？",
  ("capital", "city"): "{country}的首都是哪座城市？",
  ("sights", "number"): "{city}有几{sight}？",
  ("sleeps", "spot"): "那{animal:匹|只|头}{colour}的{animal}在哪里睡觉？",
}
