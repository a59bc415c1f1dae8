"""Random names for containers without one: an adjective and the surname of someone who built things."""

from __future__ import annotations

import random

_ADJECTIVES = (
    "able agile amber ancient apt ardent autumn azure balmy blithe bold brave breezy bright brisk "
    "calm candid cheerful clear clever cosy crisp curious daring deft eager early earnest easy elated "
    "epic exact fair fancy festive fluent fond frank fresh gallant gentle gifted glad golden graceful "
    "grand happy hardy hearty honest humble jolly jovial keen kind lively loyal lucid lucky mellow "
    "merry mild modest neat nimble noble patient placid plucky polite proud quick quiet radiant ready "
    "robust rustic serene sharp shiny silent sincere sleek smart snug solid spry stoic sturdy sunny "
    "swift tidy tranquil trusty upbeat vivid warm wise witty zesty "
).split()

_PEOPLE = (
    "abel agnesi archimedes babbage bardeen bell bernoulli bohr boole borg bose brahmagupta cantor "
    "carson cerf chandra church curie darwin dijkstra easley einstein engelbart erdos euclid euler "
    "faraday fermat feynman franklin galileo galois gauss goldberg hamilton hawking hertz hilbert "
    "hopper hypatia jang johnson kalam kepler kilby knuth lamarr leakey lehmann liskov lovelace "
    "maxwell mayer mccarthy meitner mendel mirzakhani moore morse neumann newton nightingale noether "
    "pascal pasteur payne perlman pike planck poincare ramanujan ride ritchie roentgen rubin sammet "
    "shannon shirley sinoussi somerville stallman tesla thompson torvalds turing varahamihira volta "
    "wescoff wiles wilson wozniak wright wu yalow yonath zhukovsky "
).split()


def random_name(*, retry: int = 0) -> str:
    """Return a name such as `swift_hopper`; from the first retry on with a digit behind it."""
    name = f"{random.choice(_ADJECTIVES)}_{random.choice(_PEOPLE)}"
    return f"{name}{random.randrange(10)}" if retry else name
