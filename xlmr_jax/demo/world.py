"""The demo world: who and what exists, and which facts hold. It knows no language; grammar.py turns facts into text."""

import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

GENDER = {
  **dict.fromkeys(
    ("anna", "maria", "sara", "fatima", "elena", "leila", "amina", "olga", "julia", "zeynep", "priya", "meiling"), "f"
  ),
  **dict.fromkeys(
    ("ali", "omar", "ivan", "david", "daniel", "hassan", "viktor", "paul", "ravi", "mehmet", "juma", "nikos"), "m"
  ),
}
COUNTRY = {  # city -> country
  "london": "uk", "paris": "france", "berlin": "germany", "hamburg": "germany", "madrid": "spain",
  "barcelona": "spain", "rome": "italy", "athens": "greece", "sofia": "bulgaria", "moscow": "russia",
  "istanbul": "turkey", "ankara": "turkey", "cairo": "egypt", "nairobi": "kenya", "delhi": "india",
  "mumbai": "india", "karachi": "pakistan", "beijing": "china", "shanghai": "china", "bangkok": "thailand",
  "hanoi": "vietnam", "tokyo": "japan", "new_york": "usa",
}  # fmt: skip
NOT_CAPITALS = ("hamburg", "barcelona", "istanbul", "mumbai", "karachi", "shanghai", "new_york")
TONGUE = {  # country -> language spoken there, where the world knows its name
  "uk": "english", "usa": "english", "france": "french", "germany": "german", "spain": "spanish",
  "russia": "russian", "egypt": "arabic", "india": "hindi", "turkey": "turkish", "china": "chinese",
  "kenya": "swahili", "greece": "greek",
}  # fmt: skip
WORKPLACE = {  # job -> place of work
  "teacher": "school", "doctor": "hospital", "cook": "restaurant", "engineer": "factory",
  "scientist": "university", "actor": "theatre", "farmer": "farm", "lawyer": "office", "seller": "shop",
  "librarian": "library",
}  # fmt: skip
FUR, FEATHERS = ("black", "white", "brown", "grey"), ("green", "red", "blue", "grey")
THIS_YEAR = 2025

# Every word of the world by table; each language file has a form for each of them.
WORDS: dict[str, tuple[str, ...]] = {
  "person": tuple(GENDER),
  "city": tuple(COUNTRY),
  "country": tuple(dict.fromkeys(COUNTRY.values())),
  "job": tuple(WORKPLACE),
  "place": tuple(WORKPLACE.values()),
  "animal": ("cat", "dog", "horse", "rabbit", "parrot", "goat", "cow"),
  "colour": ("black", "white", "brown", "grey", "red", "blue", "green"),
  "thing": ("car", "bicycle", "bag", "house", "coat", "umbrella", "hat"),
  "goods": ("book", "apple", "egg", "ticket", "pen", "flower", "cup"),
  "food": ("tea", "coffee", "bread", "rice", "fish", "milk", "cheese", "honey"),
  "tongue": tuple(dict.fromkeys(TONGUE.values())),
  "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
  "weather": ("hot", "cold", "rain", "snow", "sun", "wind"),
  "sight": ("museum", "park", "bridge", "market", "hotel", "school"),
  "action": ("read", "cook", "swim", "sing", "dance", "football", "music", "letters"),
  "time": ("morning", "afternoon", "evening"),
  "kin": ("parent", "child", "sibling", "friend", "neighbour"),
  "spot": ("garden", "house", "kitchen", "table", "door"),
}
# Numbers: small counts start at 3 because two is a form of its own in Arabic; ages end below 100 and start
# above 10 for the same reason.
NUMBERS: dict[str, range] = {"number": range(3, 10), "age": range(18, 81), "year": range(1945, 2008)}

KINDS: dict[str, dict[str, str]] = {  # kind of fact -> its slots and the table of each
  "lives": {"person": "person", "city": "city"},
  "born": {"person": "person", "city": "city"},
  "year": {"person": "person", "year": "year"},
  "age": {"person": "person", "age": "age"},
  "job": {"person": "person", "job": "job"},
  "works": {"person": "person", "place": "place"},
  "pet": {"person": "person", "animal": "animal", "colour": "colour"},
  "owns": {"person": "person", "thing": "thing", "colour": "colour"},
  "buys": {"person": "person", "number": "number", "goods": "goods"},
  "likes": {"person": "person", "food": "food"},
  "speaks": {"person": "person", "tongue": "tongue"},
  "travels": {"person": "person", "city": "city", "day": "day"},
  "kin": {"person": "person", "kin": "kin", "other": "person"},
  "does": {"person": "person", "action": "action", "time": "time"},
  "country": {"city": "city", "country": "country"},
  "capital": {"city": "city", "country": "country"},
  "weather": {"city": "city", "weather": "weather", "day": "day"},
  "sights": {"city": "city", "number": "number", "sight": "sight"},
  "sleeps": {"animal": "animal", "colour": "colour", "spot": "spot"},
}
# Questions every language can ask: kind of fact -> slots that may be the answer.
ASKED: dict[str, tuple[str, ...]] = {
  "lives": ("city", "person"), "born": ("city",), "year": ("year",), "age": ("age",), "job": ("job",),
  "works": ("place",), "pet": ("animal",), "buys": ("number",), "likes": ("food",), "speaks": ("tongue",),
  "travels": ("city", "day"), "kin": ("person",), "country": ("country",), "capital": ("city",),
  "sights": ("number",), "sleeps": ("spot",),
}  # fmt: skip


def values_of(table: str) -> tuple[str, ...] | range:
  """All values that a slot of this table can take."""
  return NUMBERS[table] if table in NUMBERS else WORDS[table]


@dataclass(frozen=True)
class Fact:
  """A kind of fact and the value of each of its slots, in the order of KINDS[kind]."""

  kind: str
  values: tuple[str | int, ...]

  @classmethod
  def with_slots(cls, kind: str, **slots: str | int) -> "Fact":
    """The fact whose slots have these values."""
    return cls(kind, tuple(slots[name] for name in KINDS[kind]))

  @property
  def slots(self) -> dict[str, str | int]:
    """{slot: value}."""
    return dict(zip(KINDS[self.kind], self.values, strict=True))

  def replace(self, **slots: str | int) -> "Fact":
    """The same kind of fact with some slots changed. It contradicts this one if such a slot can hold only one value."""
    return Fact.with_slots(self.kind, **{**self.slots, **slots})


@dataclass(frozen=True)
class Person:
  """One inhabitant. Two documents may have persons of one name, as in life; one document may not."""

  name: str
  age: int
  home: str
  birthplace: str
  job: str
  pet: tuple[str, str]  # animal, colour
  thing: tuple[str, str]  # thing, colour
  food: str
  tongue: str
  action: tuple[str, str]  # action, time of day
  goods: tuple[int, str]  # number, goods
  trip: tuple[str, str]  # city, day
  kin: tuple[str, str]  # what this person is to whom


# The checksum of a context, modulo 8, says which split of the tasks it belongs to.
SPLITS = ("dev", "test", *["train"] * 6)


def split_of(facts: Iterable[Fact]) -> str:
  """The split of the tasks that a context belongs to, in whatever order and language its facts are told."""
  return SPLITS[zlib.crc32(" ".join(sorted(map(repr, facts))).encode()) % len(SPLITS)]


def draw_pet(rng: random.Random) -> tuple[str, str]:
  """(animal, a colour that it can have)."""
  animal = rng.choice(WORDS["animal"])
  return animal, rng.choice(FEATHERS if animal == "parrot" else FUR)


def draw_person(rng: random.Random, avoid: Iterable[str] = ()) -> Person:
  """A person with a name outside `avoid` and a life that hangs together (ages, trips, languages)."""
  name, other = rng.sample([name for name in WORDS["person"] if name not in set(avoid)], 2)
  home, birthplace = rng.choice(WORDS["city"]), rng.choice(WORDS["city"])
  age = rng.choice(NUMBERS["age"])
  kins = [kin for kin in WORDS["kin"] if not (kin == "parent" and age < 40) and not (kin == "child" and age > 45)]
  return Person(
    name=name,
    age=age,
    home=home,
    birthplace=birthplace,
    job=rng.choice(WORDS["job"]),
    pet=draw_pet(rng),
    thing=(rng.choice(WORDS["thing"]), rng.choice(WORDS["colour"])),
    food=rng.choice(WORDS["food"]),
    tongue=TONGUE.get(COUNTRY[birthplace]) or rng.choice(WORDS["tongue"]),
    action=(rng.choice(WORDS["action"]), rng.choice(WORDS["time"])),
    goods=(rng.choice(NUMBERS["number"]), rng.choice(WORDS["goods"])),
    trip=(rng.choice([city for city in WORDS["city"] if city != home]), rng.choice(WORDS["day"])),
    kin=(rng.choice(kins), other),
  )


def person_facts(person: Person) -> list[Fact]:
  """Everything that the world knows about one person; at most one fact of each kind."""
  name = person.name
  return [
    Fact.with_slots("lives", person=name, city=person.home),
    Fact.with_slots("born", person=name, city=person.birthplace),
    Fact.with_slots("year", person=name, year=THIS_YEAR - person.age),
    Fact.with_slots("age", person=name, age=person.age),
    Fact.with_slots("job", person=name, job=person.job),
    Fact.with_slots("works", person=name, place=WORKPLACE[person.job]),
    Fact.with_slots("pet", person=name, animal=person.pet[0], colour=person.pet[1]),
    Fact.with_slots("owns", person=name, thing=person.thing[0], colour=person.thing[1]),
    Fact.with_slots("buys", person=name, number=person.goods[0], goods=person.goods[1]),
    Fact.with_slots("likes", person=name, food=person.food),
    Fact.with_slots("speaks", person=name, tongue=person.tongue),
    Fact.with_slots("travels", person=name, city=person.trip[0], day=person.trip[1]),
    Fact.with_slots("kin", person=name, kin=person.kin[0], other=person.kin[1]),
    Fact.with_slots("does", person=name, action=person.action[0], time=person.action[1]),
  ]


def city_facts(city: str, rng: random.Random) -> list[Fact]:
  """The lasting facts about a city, and a few drawn ones: sights, weather, who lives or was born there."""
  country = COUNTRY[city]
  capital = [] if city in NOT_CAPITALS else [Fact.with_slots("capital", city=city, country=country)]
  sights = rng.sample(WORDS["sight"], 2)
  resident, native, guest = rng.sample(WORDS["person"], 3)
  return [
    Fact.with_slots("country", city=city, country=country),
    *capital,
    *(Fact.with_slots("sights", city=city, number=rng.choice(NUMBERS["number"]), sight=sight) for sight in sights),
    Fact.with_slots("weather", city=city, weather=rng.choice(WORDS["weather"]), day=rng.choice(WORDS["day"])),
    Fact.with_slots("lives", person=resident, city=city),
    Fact.with_slots("born", person=native, city=city),
    Fact.with_slots("travels", person=guest, city=city, day=rng.choice(WORDS["day"])),
  ]


def day_facts(day: str, rng: random.Random) -> list[Fact]:
  """What happens on one day to two people, in one city and to an animal."""
  first = draw_person(rng)
  second = draw_person(rng, avoid=(first.name,))
  animal, colour = draw_pet(rng)
  return [
    Fact.with_slots("weather", city=first.home, weather=rng.choice(WORDS["weather"]), day=day),
    *(Fact.with_slots("travels", person=person.name, city=person.trip[0], day=day) for person in (first, second)),
    *(
      Fact.with_slots("does", person=person.name, action=person.action[0], time=person.action[1])
      for person in (first, second)
    ),
    Fact.with_slots("buys", person=first.name, number=first.goods[0], goods=first.goods[1]),
    Fact.with_slots("works", person=second.name, place=WORKPLACE[second.job]),
    Fact.with_slots("sleeps", animal=animal, colour=colour, spot=rng.choice(WORDS["spot"])),
  ]


def subject_facts(rng: random.Random) -> list[Fact]:
  """All facts about a person, a city or a day that is drawn; persons are drawn most often."""
  subject = rng.choices(("person", "city", "day"), weights=(3, 1, 1))[0]
  if subject == "person":
    return person_facts(draw_person(rng))
  if subject == "city":
    return city_facts(rng.choice(WORDS["city"]), rng)
  return day_facts(rng.choice(WORDS["day"]), rng)
