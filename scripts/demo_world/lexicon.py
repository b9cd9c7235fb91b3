"""The words of the demo world and what each of them means.

A *leaf* is the most specific value of something: a kind of thing (``poodle`` would be one), a
value of a scale (``huge``), a place, a verb. A word's meaning is a set of leaves, kept as the
bits of an int, so "dog is an animal" is the subset test ``dog & ~animal == 0``. Words with the
same set are synonyms; a word with a larger set is a hypernym; two sets without a common leaf
exclude each other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """One meaning with the words for it.

    Attributes:
        meaning: bits of the leaves it covers.
        words: synonyms; nouns and verbs hold tuples of forms, see :func:`noun`, :func:`verb`.
        group: what it may be combined with (a scale, a class of nouns, a class of objects).
    """

    meaning: int
    words: tuple[tuple[str, ...], ...]
    group: str

    @property
    def leaf(self) -> bool:
        """Whether it covers exactly one leaf."""
        return self.meaning & (self.meaning - 1) == 0


# --------------------------------------------------------------------------- kinds and names

_WOMEN = "anna clara emma grace julia laura maria nina olga ruth sara zoe"
_MEN = "adam ben carl david felix george hugo ivan jack leo oscar tom"

# leaf kind: synonyms (singular), with its class. Plurals are regular but for those below.
_KINDS = {
    "person": "woman|man|boy|girl|doctor/physician|teacher|farmer|baker|sailor|painter",
    "animal": "dog/hound|cat|rabbit/bunny|horse|cow|goat|parrot|owl|duck",
    "food": "apple|pear|lemon|cake|pie|sandwich",
    "thing": "hat|coat|scarf|ball|doll|kite|hammer|saw|axe/hatchet|car/automobile|bus|truck/lorry",
}
_PLURALS = {
    "woman": "women",
    "man": "men",
    "child": "children",
    "person": "people",
    "bus": "buses",
    "scarf": "scarves",
    "sandwich": "sandwiches",
    "bunny": "bunnies",
    "lorry": "lorries",
}
_UPPER_KINDS = {
    "child/kid": "boy girl",
    "worker": "doctor teacher farmer baker sailor painter",
    "person": "woman man boy girl doctor teacher farmer baker sailor painter",
    "pet": "dog cat rabbit",
    "bird": "parrot owl duck",
    "animal": "dog cat rabbit horse cow goat parrot owl duck",
    "fruit": "apple pear lemon",
    "snack": "cake pie sandwich",
    "garment": "hat coat scarf",
    "toy": "ball doll kite",
    "tool": "hammer saw axe",
    "vehicle": "car bus truck",
}


def plural(singular: str) -> str:
    """The plural of a noun of this world."""
    return _PLURALS.get(singular) or singular + "s"


def noun(words: str) -> tuple[tuple[str, ...], ...]:
    """``"shop/store"`` → (singular, plural) of each synonym."""
    return tuple((word, plural(word)) for word in words.split("/"))


def _kinds() -> tuple[dict[str, int], list[Concept], list[Concept]]:
    bits: dict[str, int] = {}
    leaves, groups = [], {}
    for group, listed in _KINDS.items():
        for words in listed.split("|"):
            name = words.split("/")[0]
            bits[name] = 1 << len(bits)
            groups[name] = group
            leaves.append(Concept(bits[name], noun(words), group))
    upper = []
    for words, members in _UPPER_KINDS.items():
        names = members.split()
        meaning = sum(bits[name] for name in names)
        upper.append(Concept(meaning, noun(words), groups[names[0]]))
    return bits, leaves, upper


KIND_BITS, LEAF_NOUNS, UPPER_NOUNS = _kinds()
NOUNS = LEAF_NOUNS + UPPER_NOUNS
PERSON = next(c for c in UPPER_NOUNS if c.words[0][0] == "person")
ANY_OBJECT = Concept(
    sum(c.meaning for c in LEAF_NOUNS if c.group != "person"), (("thing", "things"),), "thing"
)


@dataclass(frozen=True)
class Name:
    """A named person; ``kind`` is the bit of woman or man."""

    word: str
    kind: int


NAMES = [Name(word, KIND_BITS["woman"]) for word in _WOMEN.split()] + [
    Name(word, KIND_BITS["man"]) for word in _MEN.split()
]

# --------------------------------------------------------------------------- scales and places

# Per scale: leaves from one end to the other ("-" is a value no word names), then the words.
# Every subject has exactly one value of each scale that fits it, so opposite words exclude each
# other, yet "not big" does not mean "small".
_SCALES: dict[str, tuple[str, dict[str, str]]] = {
    "mood": (
        "miserable sad - happy delighted",
        {
            "sad/unhappy": "sad miserable",
            "miserable": "miserable",
            "happy/glad": "happy delighted",
            "delighted": "delighted",
        },
    ),
    "energy": (
        "exhausted tired - lively",
        {
            "tired/weary": "tired exhausted",
            "exhausted": "exhausted",
            "lively/energetic": "lively",
        },
    ),
    "hunger": (
        "starving hungry - full",
        {"hungry": "hungry starving", "starving/famished": "starving", "full": "full"},
    ),
    "health": ("sick - healthy", {"sick/ill": "sick", "healthy/well": "healthy"}),
    "wealth": ("poor - rich", {"poor": "poor", "rich/wealthy": "rich"}),
    "sound": (
        "silent quiet - loud",
        {"quiet": "quiet silent", "silent": "silent", "loud/noisy": "loud"},
    ),
    "size": (
        "tiny small - big huge",
        {
            "small/little": "small tiny",
            "tiny": "tiny",
            "big/large": "big huge",
            "huge/enormous": "huge",
        },
    ),
    "water": ("soaked wet - dry", {"wet": "wet soaked", "soaked": "soaked", "dry": "dry"}),
    "dirt": (
        "filthy dirty - clean spotless",
        {
            "dirty": "dirty filthy",
            "filthy": "filthy",
            "clean": "clean spotless",
            "spotless": "spotless",
        },
    ),
    "age": ("ancient old - new", {"old": "old ancient", "ancient": "ancient", "new": "new"}),
    "weight": ("light - heavy", {"light": "light", "heavy": "heavy"}),
    "price": ("cheap - expensive", {"cheap": "cheap", "expensive/costly": "expensive"}),
    "colour": (
        "scarlet red navy blue green yellow black white -",
        {
            "red": "red scarlet",
            "scarlet": "scarlet",
            "blue": "blue navy",
            "navy": "navy",
            "green": "green",
            "yellow": "yellow",
            "black": "black",
            "white": "white",
        },
    ),
    "place": (
        "kitchen bedroom cellar library school museum shop inside "
        "park garden forest field market outside",
        {
            "kitchen": "kitchen",
            "bedroom": "bedroom",
            "cellar": "cellar",
            "house": "kitchen bedroom cellar",
            "library": "library",
            "school": "school",
            "museum": "museum",
            "shop/store": "shop",
            "park": "park",
            "garden": "garden",
            "forest/woods": "forest",
            "field/meadow": "field",
            "market": "market",
            "indoors/inside": "kitchen bedroom cellar library school museum shop inside",
            "outdoors/outside": "park garden forest field market outside",
        },
    ),
}
_APPLY = {
    "person": "mood energy hunger health wealth sound place",
    "animal": "mood energy hunger health sound size water dirt place",
    "food": "size price weight colour place",
    "thing": "size water dirt age weight price colour place",
}


def _scales() -> tuple[dict[str, int], dict[str, list[Concept]]]:
    full, words = {}, {}
    for scale, (leaves, listed) in _SCALES.items():
        bits: dict[str, int] = {}
        for number, leaf in enumerate(leaves.split()):
            bits[leaf] = 1 << number
        full[scale] = (1 << len(leaves.split())) - 1
        words[scale] = [
            Concept(
                sum(bits[leaf] for leaf in members.split()),
                tuple((word,) for word in synonyms.split("/")),
                scale,
            )
            for synonyms, members in listed.items()
        ]
    return full, words


FULL, SCALE_WORDS = _scales()
"""All values of a scale as bits; the concepts that name some of them."""

SCALES_OF = {group: scales.split() for group, scales in _APPLY.items()}
"""Scales that fit a class of nouns."""

PLACES = [c for c in SCALE_WORDS["place"] if c.words[0][0] not in ("indoors", "outdoors")]
ADVERBS = ("indoors", "inside", "outdoors", "outside")
"""Words of place that stand alone: "is indoors", but "is in the park"."""

COLOURS = SCALE_WORDS["colour"]

# --------------------------------------------------------------------------- verbs

# base/past/participle; synonyms follow after "|"; then the leaves of a hypernym.
_VERBS = {
    "object": [
        "buy/bought/bought|purchase/purchased/purchased",
        "find/found/found|discover/discovered/discovered",
        "steal/stole/stolen",
        "lose/lost/lost|misplace/misplaced/misplaced",
        "sell/sold/sold",
        "spot/spotted/spotted|notice/noticed/noticed",
        "watch/watched/watched|observe/observed/observed",
        "paint/painted/painted",
    ],
    "thing": [
        "push/pushed/pushed|shove/shoved/shoved",
        "pull/pulled/pulled|drag/dragged/dragged",
        "carry/carried/carried",
        "break/broke/broken|smash/smashed/smashed",
        "burn/burned/burned",
        "fix/fixed/fixed|repair/repaired/repaired",
    ],
    "food": ["eat/ate/eaten|devour/devoured/devoured", "cook/cooked/cooked"],
}
_UPPER_VERBS = {
    "object": {
        "get/got/got|obtain/obtained/obtained": "buy find steal",
        "see/saw/seen": "spot watch",
    },
    "thing": {
        "move/moved/moved": "push pull carry",
        "damage/damaged/damaged": "break burn",
    },
}
_OBJECTS_OF = {
    "object": ("animal", "food", "thing"),
    "thing": ("thing",),
    "food": ("food",),
}


def verb(forms: str) -> tuple[tuple[str, ...], ...]:
    """``"buy/bought/bought|…"`` → (base, past, participle) of each synonym."""
    return tuple(tuple(part.split("/")) for part in forms.split("|"))


def _verbs() -> tuple[dict[str, int], list[Concept]]:
    bits: dict[str, int] = {}
    concepts = []
    for group, listed in _VERBS.items():
        for forms in listed:
            name = forms.split("/")[0]
            bits[name] = 1 << len(bits)
            concepts.append(Concept(bits[name], verb(forms), group))
    for group, uppers in _UPPER_VERBS.items():
        for forms, members in uppers.items():
            meaning = sum(bits[name] for name in members.split())
            concepts.append(Concept(meaning, verb(forms), group))
    return bits, concepts


VERB_BITS, VERBS = _verbs()
OBJECTS_FOR = {
    group: [c for c in NOUNS if c.group in classes] for group, classes in _OBJECTS_OF.items()
}
"""Nouns that a class of verbs may take as its object."""

# --------------------------------------------------------------------------- opinions

PRAISE = ("good", "great", "lovely", "excellent", "wonderful", "superb", "charming", "pleasant")
BLAME = ("bad", "awful", "terrible", "horrible", "dreadful", "dull", "boring", "nasty")
LIKED = ("liked", "loved", "enjoyed", "admired")
DISLIKED = ("hated", "disliked", "regretted", "despised")
LIKE = ("like", "love", "enjoy", "admire")
DISLIKE = ("hate", "dislike", "regret", "despise")
REVIEWED = (
    "film", "book", "song", "story", "play", "concert", "meal", "soup", "trip", "hotel", "room",
    "service", "music", "game", "show", "lecture",
)  # fmt: skip
