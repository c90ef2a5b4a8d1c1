"""The vocabulary: words that go together in any combination the grammar makes of them."""

from typing import Literal, NamedTuple

Number = Literal["singular", "plural"]


class Forms(NamedTuple):
    """A noun or verb: its form with a singular subject and with a plural one."""

    singular: str
    plural: str

    def of(self, number: Number) -> str:
        """The form for a subject of this number."""
        return self.singular if number == "singular" else self.plural


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _nouns(words: str) -> tuple[Forms, ...]:
    """One noun a word; ``child:children`` gives an irregular plural."""
    pairs = (word.partition(":") for word in words.split())
    return tuple(Forms(noun, irregular or _plural(noun)) for noun, _, irregular in pairs)


def _verbs(words: str) -> tuple[Forms, ...]:
    return tuple(Forms(f"{verb}es" if verb.endswith("o") else _plural(verb), verb) for verb in words.split())


def _adjectives(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


PEOPLE = _nouns(
    """farmer teacher doctor nurse lawyer pilot baker painter writer singer dancer driver guard soldier sailor
    student player coach runner swimmer artist actor waiter banker builder butcher carpenter plumber gardener
    hunter miner tailor weaver potter poet author editor reporter printer scholar professor scientist engineer
    chemist physicist surgeon dentist patient child:children man:men woman:women boy girl friend neighbor cousin
    brother sister uncle aunt son daughter father mother king queen prince knight servant merchant clerk manager
    officer captain general judge senator mayor minister priest monk bishop villager citizen visitor tourist guest
    traveler stranger thief:thieves pirate spy wizard witch giant hero:heroes customer client worker boss owner
    tenant landlord janitor cook chef librarian musician drummer pianist juggler clown acrobat athlete referee
    inspector detective witness consultant designer director assistant secretary volunteer parent""",
)

THINGS = _nouns(
    """book letter picture lamp chair table box bag basket bottle cup plate bowl spoon knife:knives key clock
    watch ring necklace coat hat shirt shoe glove blanket pillow carpet curtain mirror candle drum guitar violin
    piano radio camera computer phone machine engine car truck bus bicycle boat ship train wagon tool hammer rope
    ladder bucket brush pen pencil map poster painting statue coin ticket toy doll kite ball puzzle cake pie
    cookie apple pear lemon sandwich""",
)

PLACES = _nouns(
    """house cottage castle palace tower church temple school college library museum theater hospital hotel shop
    store bakery factory barn stable garage office station bridge road path street river lake pond hill mountain
    valley forest tree bush garden field meadow fence wall gate door window fountain bench well mill cave harbor
    tent cabin village farm orchard vineyard monument lighthouse""",
)

PEOPLE_ADJECTIVES = _adjectives(
    """old young tall short kind clever honest lazy busy quiet loud shy brave famous rich poor happy sad angry
    tired hungry friendly polite rude curious careful careless gentle proud humble strong weak healthy sick nervous
    calm cheerful serious funny strange wise foolish patient jealous generous greedy loyal stubborn skilled
    talented popular lonely grumpy handsome elegant local foreign retired wealthy"""
)

THING_ADJECTIVES = _adjectives(
    """old new big small large tiny heavy light red blue green yellow white black brown gray round square broken
    dirty clean dusty shiny cheap expensive beautiful ugly plain simple fancy ancient modern rare common wooden
    metal plastic soft hard long narrow wide empty missing wet dry cold warm strange lovely useful useless
    colorful delicate sturdy rusty famous precious"""
)

PERSON_VERBS = _verbs(
    """walk run sing work live wait write speak know want seem look think play travel dance smile eat drink sit stand
    stay arrive leave agree listen need remain appear believe understand feel hope come go try enjoy start learn
    remember continue prefer love plan fight argue study practice rest vote win lose return help teach hunt succeed
    fail follow"""
)
"""No verb whose past looks like its plural ("read"): both forms would then be right after a singular subject."""

THING_VERBS = _verbs("seem look remain appear belong need stand fall stay lie smell feel")

DOINGS = _verbs(
    """sing work wait write speak play travel dance smile eat drink sit listen cook argue study rest hunt fish"""
)
"""Verbs that stand alone, and so can be joined by "and"."""

AUXILIARIES = (Forms("is", "are"), Forms("has", "have"))
PAST = Forms("was", "were")

TOWARDS_PEOPLE = _verbs("admire trust like know help follow meet teach visit praise remember avoid fear watch respect")

TOWARDS_THINGS = _verbs("own want need sell use like buy borrow paint move keep hide collect clean repair")

POSSESSIVES = ("my", "our", "your", "his", "her", "their")
NEARNESS = ("near", "beside", "behind", "next to", "close to", "in front of", "across from")
COMPANIONS = ("along with", "together with", "as well as", "in addition to")
ONE_OF = ("each of", "one of", "every one of", "only one of", "not one of", "just one of")
SEVERAL_OF = ("all of", "most of", "several of", "some of", "many of", "two of", "three of", "a few of", "both of")

OPENERS_ANY = _phrases(
    """In the end|Of course|As usual|For some reason|Without a doubt|In fact|By all accounts|To my surprise|In truth|
    In this town|At the market|Down by the river|According to the news|As far as I know|Strangely enough|
    Luckily for us|In her opinion|In his story|Outside the city|On this island|At home|At first sight|
    By the way|Not surprisingly|Sadly|Clearly|Perhaps unexpectedly|As you can see|Like most others|
    From what we hear|On the whole|In other words|For example|To be honest|Apparently|Fortunately|
    Interestingly|Curiously|Indeed|Unfortunately"""
)

OPENERS_NOW = _phrases(
    """Every morning|These days|Every now and then|On most days|On Sundays|In summer|Nowadays|At the moment|
    Most of the time|Every spring|After work|Before breakfast|From time to time|In the evenings|Right now|
    Once a week|All day long"""
)

OPENERS_THEN = _phrases(
    """Yesterday|Last winter|Two years ago|In those days|That night|Last week|A long time ago|On that morning|
    In 1950|Back then|Many years earlier|The day before|During the storm|After the war|An hour ago|By then"""
)
