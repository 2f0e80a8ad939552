"""The phrase book of the synthetic task.

A template is one sentence. `{hero}`, `{object}` and `{place}` (in recipes `{dish}`,
`{first}` and `{second}`) are the things that the prompt asks for; `<silver|restless>` is a
vivid word that a writer may choose, one of the two or none.
"""

from dataclasses import dataclass

HEROES = (
    "fisherman", "baker", "tailor", "doctor", "miller", "soldier", "teacher", "thief", "captain",
    "gardener", "weaver", "farmer", "potter", "sailor", "hunter", "painter",
)  # fmt: skip
OBJECTS = (
    "key", "lantern", "flute", "map", "bottle", "coat", "bell", "umbrella", "violin", "clock",
    "mirror", "ladder", "basket", "candle", "drum", "hammer",
)  # fmt: skip
PLACES = (
    "harbor", "orchard", "market", "bridge", "library", "lake", "station", "windmill", "chapel",
    "forest", "castle", "meadow", "valley", "island", "tower", "garden",
)  # fmt: skip
DISHES = (
    "soup", "pie", "stew", "salad", "porridge", "gratin", "curry", "flatbread", "casserole",
    "risotto", "pudding", "dumpling", "pancake", "chowder",
)  # fmt: skip
INGREDIENTS = (
    "leeks", "barley", "carrots", "mushrooms", "lentils", "apples", "onions", "spinach",
    "chestnuts", "beans", "pears", "potatoes", "turnips", "pumpkins", "radishes", "peas",
    "tomatoes", "cabbages", "beets", "plums", "walnuts", "almonds",
)  # fmt: skip

MARKER_RANK = {
    "One morning": 0, "Long ago": 0, "Early one day": 0, "First": 0, "To begin": 0,
    "Then": 1, "Soon": 1, "A little later": 1, "Next": 1,
    "After that": 2, "By evening": 2, "Meanwhile": 2,
    "At last": 3, "In the end": 3, "From that day on": 3, "Finally": 3, "To finish": 3,
}  # fmt: skip
"""Where in a text a sentence that opens with these words belongs; a good text never goes back."""


@dataclass(frozen=True)
class Genre:
    """One kind of request and the sentences that answer it.

    Attributes:
        slots: The names of the things that a prompt asks for, in the order they are named.
        things: For each slot the nouns that may fill it.
        requests: Prompt templates.
        openings: First sentences, by event.
        middles: Middle sentences, by event.
        endings: Last sentences that close a text well.
        middle_markers: Marker phrases for the first and the second half of the middle.
    """

    slots: tuple[str, ...]
    things: tuple[tuple[str, ...], ...]
    requests: tuple[str, ...]
    openings: dict[str, str]
    middles: dict[str, str]
    endings: dict[str, str]
    middle_markers: tuple[tuple[str, ...], tuple[str, ...]]


STORY = Genre(
    slots=("hero", "object", "place"),
    things=(HEROES, OBJECTS, PLACES),
    requests=(
        "Write a short story about the {hero}, the {object} and the {place}.",
        "Tell me a little tale of the {hero}, the {object} and the {place}.",
        "Please make up a story with the {hero}, the {object} and the {place} in it.",
    ),
    openings={
        "walked": "One morning the {hero} walked to the {place} in the <silver|pale> sunlight.",
        "lived": "Long ago the {hero} lived near the {place} in a <crooked|whitewashed> house.",
        "woke": "Early one day the {hero} woke to a <distant|trembling> sound from the {place}.",
        "waited": "One morning the {hero} waited at the {place} under <stormy|scarlet> clouds.",
        "dreamed": "Long ago the {hero} dreamed of the {object} one <moonlit|feverish> night.",
    },
    middles={
        "found": "the {hero} found the {object} under a <mossy|glittering> stone.",
        "carried": "the {hero} carried the {object} through the <whispering|tangled> grass.",
        "lost": "the {hero} lost the {object} in the <swirling|murky> water.",
        "hid": "the {hero} hid the {object} behind a <crumbling|carved> wall.",
        "showed": "the {hero} showed the {object} to a <wrinkled|laughing> stranger.",
        "rain": "rain fell on the {place} and the <hollow|gleaming> roofs were loud.",
        "opened": "a <creaking|narrow> door opened somewhere in the {place}.",
        "sang": "the people of the {place} sang a <tender|ancient> song together.",
        "mended": "the {hero} mended the {object} with a <crimson|delicate> piece of thread.",
        "asked": "the {hero} asked about the {object} in a <husky|gentle> whisper.",
        "followed": "a <ragged|golden> dog followed the {hero} across the {place}.",
        "remembered": "the {hero} remembered a <bitter|forgotten> promise and stopped.",
        "climbed": "the {hero} climbed above the {place} on <slippery|endless> steps.",
        "traded": "somebody wanted to trade a <dazzling|speckled> horse for the {object}.",
    },
    endings={
        "home": "At last the {hero} went home with the {object} and slept in peace.",
        "forgave": "In the end the {hero} forgave everyone and smiled at the {place}.",
        "shared": "From that day on the {hero} shared the {object} with every child.",
        "rang": "At last the bells rang over the {place} and nobody was afraid.",
        "kept": "From that day on the {object} was kept safe and the promise was too.",
    },
    middle_markers=(("Then", "Soon", "A little later"), ("After that", "By evening", "Meanwhile")),
)

RECIPE = Genre(
    slots=("dish", "first", "second"),
    things=(DISHES, INGREDIENTS, INGREDIENTS),
    requests=(
        "How do I make a good {dish} from {first} and {second}?",
        "Please explain how to cook a {dish} with {first} and {second}.",
        "I have {first} and {second} and want to make a {dish}. What should I do?",
    ),
    openings={
        "wash": "First wash the {first} in <icy|sparkling> water.",
        "peel": "To begin peel the {second} with a <gleaming|narrow> knife.",
        "warm": "First warm a <heavy|battered> pan for the {dish}.",
        "choose": "To begin choose <plump|earthy> {first} at a roadside stall.",
    },
    middles={
        "chop": "chop the {first} into <delicate|rustic> pieces.",
        "fry": "fry the {second} in <golden|fragrant> butter.",
        "boil": "boil the {first} in a <steaming|battered> pot until they are soft.",
        "stir": "stir the {second} into the {dish} with a <gentle|steady> hand.",
        "salt": "add salt and some <fiery|fragrant> pepper to the {dish}.",
        "rest": "let the {dish} rest under a <linen|snowy> cloth.",
        "taste": "taste the {dish} and add some <sharp|velvety> cream.",
        "grate": "grate some <crumbly|nutty> cheese over the {second}.",
        "roast": "roast the {second} until the <crisp|amber> edges turn brown.",
        "pour": "pour a <glossy|smoky> sauce over the {first}.",
        "knead": "press the {first} and the {second} together on a <floury|wooden> board.",
        "soak": "soak the {second} in <icy|honeyed> milk for an hour.",
    },
    endings={
        "serve": "Finally serve the {dish} warm and call everyone to the table.",
        "garnish": "To finish put a few herbs on the {dish} and enjoy it with friends.",
        "share": "Finally share the {dish} while the {first} are still hot.",
        "cool": "To finish let the {dish} cool a little and it will be perfect.",
    },
    middle_markers=(("Next", "Then", "Soon"), ("After that", "Meanwhile")),
)

GENRES = (STORY, RECIPE)

FLAT_ENDINGS = {
    "all": "That was all.",
    "done": "And so it was done.",
    "nothing": "There is nothing more to say.",
    "else": "Then something else happened.",
}
"""Sentences that end a text without closing it."""

ASIDES = {
    "cousin": "By the way my cousin bought a new bicycle.",
    "prices": "The prices of shoes went up again this year.",
    "football": "Some people would rather watch football.",
    "weather": "I read that the weather will change on Tuesday.",
    "taxes": "Nobody likes to fill in a tax form.",
    "television": "There was a good program on television.",
}
"""Sentences that have nothing to do with any request."""
