from itertools import permutations

from mivolo_lite.connected import first_connected


def test_pairs_in_any_order_give_the_same_dict_in_the_same_order():
    """Pairs may come from a set, whose order differs between processes that compare what they read."""
    pairs = [("b", "c"), ("a", "b"), ("e", "d"), ("f", "f")]
    expected = [("a", "a"), ("b", "a"), ("c", "a"), ("d", "d"), ("e", "d"), ("f", "f")]
    assert all(list(first_connected(order).items()) == expected for order in permutations(pairs))
