from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import sparse

from distspectral.embedding.transfer import sparse_tensor
from distspectral.models.map_network import MapNetwork, MapOfFunctions, by_other_functions
from distspectral.models.networks import Perceptron
from distspectral.storage.rows.sparse import SparseVectors

D, P = 6, 4


def network(hidden: tuple[int, ...] = (16, 8)) -> MapNetwork:
    torch.manual_seed(0)
    made = MapNetwork.untrained(D, P, hidden)
    made.standardize_by(np.full(D, 2.0), 3.0)
    return made


def test_it_begins_as_the_first_functions_that_are_not_constant():
    made, functions = network(), torch.randn(9, P)
    with torch.no_grad():
        made.head.weight.zero_()  # all anchors alike
        made.head.bias.zero_()
        places = made(torch.randn(9, D), functions)
    torch.testing.assert_close(places, functions[:, 1:3])


def test_beside_the_functions_a_row_lies_among_the_anchors_at_the_one_that_is_decided_for():
    made, rows = network(), torch.randn(9, D)
    with torch.no_grad():
        made.head.weight *= 1e6
        chosen = made.head(made.trunk(torch.cat([rows, torch.zeros(9, P - 1)], dim=1)).relu()).argmax(1)
        places = made(rows, torch.zeros(9, P))
    torch.testing.assert_close(places, made.anchors.detach()[chosen])


def test_features_seen_are_standardised_and_functions_are_not():
    made = network()
    assert made.trunk.input_mean.tolist() == [2.0] * D + [0.0] * (P - 1)
    assert made.trunk.input_scale.tolist() == [3.0] * D + [1.0] * (P - 1)


def test_a_network_of_one_or_two_functions_begins_with_what_there_is():
    for n_functions in (1, 2):
        torch.manual_seed(0)
        made = MapNetwork.untrained(D, n_functions, (8,))
        assert made(torch.randn(3, D), torch.randn(3, n_functions)).shape == (3, 2)
        assert float(made.start.weight.detach().sum()) == n_functions - 1


def test_its_state_is_all_of_it():
    made, rows, functions = network((12,)), torch.randn(5, D), torch.randn(5, P)
    again = MapNetwork.from_state(copy.deepcopy(made.state_dict()))
    with torch.no_grad():
        assert torch.equal(again(rows, functions), made.eval()(rows, functions))


def test_places_are_added_up_in_float32_where_products_are_rounded():
    made, rows, functions = network(), torch.randn(64, D), torch.randn(64, P)
    with torch.no_grad():
        made.anchors += 100.0
        with torch.autocast("cpu", torch.bfloat16):
            rounded = made(rows, functions)
        exact = made(rows, functions)
    assert rounded.dtype == torch.float32
    worst = float((rounded - exact).abs().max())
    assert 0 < worst < 0.05, "bfloat16 has steps of 0.5 at 100"


def test_thin_rows_get_the_places_of_dense_ones():
    dense = np.zeros((7, 40), np.float32)
    dense[np.arange(7), np.arange(7)] = 1 + np.arange(7)
    thin = sparse_tensor(SparseVectors(sparse.csr_matrix(dense)), np.arange(7))
    assert thin is not None
    torch.manual_seed(0)
    made, functions = MapNetwork.untrained(40, P, (8, 8)), torch.randn(7, P)
    with torch.no_grad():
        torch.testing.assert_close(made(thin, functions), made(torch.from_numpy(dense), functions))


def test_the_functions_learn_nothing():
    torch.manual_seed(0)
    whole = MapOfFunctions(Perceptron(D, P, (8,)), network())
    whole(torch.randn(5, D)).square().sum().backward()
    assert all(parameter.grad is None for parameter in whole.functions.parameters())
    assert all(parameter.grad is not None for parameter in whole.network.parameters())


@pytest.mark.parametrize("hidden", [(8,), (16, 8)])
@pytest.mark.parametrize("n_others", [P, P + 2])
def test_a_map_by_other_functions_places_rows_where_it_did(hidden: tuple[int, ...], n_others: int):
    made, seen = network(hidden).eval(), torch.randn(7, D)
    others = torch.cat([torch.ones(7, 1), torch.randn(7, n_others - 1)], dim=1)
    combination = torch.randn(n_others, P)
    combination[:, 0] = torch.eye(n_others)[0]  # of the constant 1
    again = MapNetwork.from_state(by_other_functions(made.state_dict(), combination))
    with torch.no_grad():
        torch.testing.assert_close(again(seen, others), made(seen, others @ combination), rtol=1e-4, atol=1e-4)
