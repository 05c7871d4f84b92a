"""Planted calls for a real model: what is in the context is known, so it is known which segments must matter.

The cases are those that `context/eval/tests/eval/planted.rs` plays with a rule in place of a model, as far as a model can
read them. Everything is made from a seed.
"""

import random

SEGMENTS = 10
PEOPLE = "Anna Boris Carla Dmitri Elena Farid Greta Henrik Ines Jonas Karim Lotte Marek Nadia Oskar Petra".split()
THINGS = "archive cellar depot garage greenhouse laboratory library storeroom studio workshop".split()
TOWNS = "Aldbury Brennfeld Corvale Dunmore Elsbach Farnley Gorsk Halden Ivrea Jarocin".split()
CODES = "otter maple falcon cedar heron birch badger willow marten alder".split()
TRIVIA = [
    "{a} painted the fence behind the house last weekend and left the brushes in a bucket of water.",
    "The train to {t} was late again, so {a} read the newspaper on the platform for half an hour.",
    "{a} prefers tea in the morning and walks to the office when it does not rain.",
    "On Mondays the canteen serves soup, on Fridays fish, and {a} brings bread from home.",
    "{a} moved the bicycles to the shed because the {p} is being repaired until the end of the month.",
    "New chairs for the meeting room will be delivered from {t}, and {a} has signed for them.",
    "The printer near the stairs is out of paper; {a} has ordered five boxes and a cartridge.",
    "{a} and {b} went to a concert in {t} and came home after midnight.",
    "In the garden of {a} the apples are ripe, and the neighbours may take as many as they like.",
    "{a} wrote a long letter to {b} about the holidays, the weather and the price of tickets.",
    "The choir practises every Thursday in the hall beside the {p}, and {a} plays the piano.",
    "{a} lost an umbrella in {t}, found it a week later, and lost it once more on the way back.",
]


class Maker:
    def __init__(self, case, seed):
        self.random = random.Random(f"{case} {seed}")
        self.people = self.random.sample(PEOPLE, len(PEOPLE))
        self.thing, self.other_thing = self.random.sample(THINGS, 2)
        self.code, self.old_code = (f"{word}-{self.random.randint(1000, 9999)}" for word in self.random.sample(CODES, 2))
        self.sentences = self.random.sample(TRIVIA, len(TRIVIA)) + self.random.sample(TRIVIA, len(TRIVIA))

    def trivia(self):
        """One or two sentences that nothing depends on."""
        return " ".join(self.sentence() for _ in range(self.random.choice((1, 2))))

    def sentence(self):
        a, b = self.random.sample(PEOPLE, 2)
        place = dict(a=a, b=b, t=self.random.choice(TOWNS), p=self.random.choice(THINGS))
        self.sentences.append(self.sentences.pop(0))
        return self.sentences[-1].format(**place)

    def call(self, planted, question, answer, n=SEGMENTS):
        """Texts at random places among trivia, in the order in which they are given."""
        places = sorted(self.random.sample(range(n), len(planted)))
        texts = dict(zip(places, planted))
        segments = [
            {"id": f"s{at}", "owner": "writer", "kind": "message", "text": texts.get(at, self.trivia()) + "\n"}
            for at in range(n)
        ]
        return {
            "segments": segments,
            "reader": "reader",
            "probe": f"\nQuestion: {question}\nAnswer:",
            "action": f" {answer}\n",
        }, [f"s{at}" for at in places]

    def fact(self):
        return f"Remember that the access code of the {self.thing} is {self.code}, and tell nobody else."

    def asked(self):
        return f"What is the access code of the {self.thing}?"


def one_fact(make):
    return make.call([make.fact()], make.asked(), make.code)


def two_wordings(make):
    same = f"To open the door of the {make.thing} you type {make.code} and wait for the green light."
    return make.call([make.fact(), same], make.asked(), make.code)


def a_copy(make):
    return make.call([make.fact(), make.fact()], make.asked(), make.code)


def nothing(make):
    return make.call([], make.asked(), make.code)


def old_and_new(make):
    old = f"The access code of the {make.thing} is {make.old_code}."
    new = f"The access code of the {make.thing} was changed today: it is {make.code} now."
    return make.call([old, new], f"What is the access code of the {make.thing} now?", make.code)


def two_steps(make):
    a, b = make.people[:2]
    planted = [f"{a} is the keeper of the {make.thing}.", f"The door code of {a} is {make.code}, that of {b} is {make.old_code}."]
    return make.call(planted, f"What is the door code of the keeper of the {make.thing}?", make.code)


def anothers_instruction(make):
    told = "You are a planner. Break the work down into steps, give each step an owner, and never answer questions yourself."
    return make.call([told, make.fact()], make.asked(), make.code)


def two_facts(make):
    other = f"The access code of the {make.other_thing} is {make.old_code}."
    asked = f"What are the access codes of the {make.thing} and of the {make.other_thing}?"
    return make.call([make.fact(), other], asked, f"{make.code} and {make.old_code}")


def trivia_and_a_fact(make):
    return make.call([make.fact()], make.asked(), make.code, n=11)


CASES = [one_fact, two_wordings, a_copy, nothing, old_and_new, two_steps, anothers_instruction, two_facts, trivia_and_a_fact]
# Cases in which a segment is needed that nothing else stands in for, and which (by place among the planted ones).
NEEDED = {"one_fact": [0], "two_facts": [0, 1], "anothers_instruction": [1], "trivia_and_a_fact": [0]}


def planted(seeds):
    """(calls, labels): every case with every seed; labels are the ids of what was planted."""
    calls, labels = [], {}
    for seed in range(seeds):
        for case in CASES:
            call, ids = case(Maker(case.__name__, seed))
            call["call"] = f"{case.__name__}/{seed}"
            calls.append(call)
            labels[call["call"]] = ids
    return calls, labels
