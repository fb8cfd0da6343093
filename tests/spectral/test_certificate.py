from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from distspectral.graph import certified as graph_certified
from distspectral.graph.certified import SymmetricLaplacian, certified, polished_functions
from distspectral.graph.store import ArrayGraph
from distspectral.spectral import bounds, certificate, subspace
from distspectral.spectral.bounds import best_of_block, errors, errors_of_block, n_near
from distspectral.spectral.certificate import as_note, as_weighed, numbers, of_residuals
from distspectral.spectral.subspace import Filters, ritz_pairs, subspace_iteration
from tests.oracles import dense_laplacian, dense_spectrum, random_graph

P, E = 5, 10


def neighbor_graph(rows, n_neighbors=8):
    """Return the graph of nearest rows, weights falling with distance."""
    squared = np.square(rows[:, None] - rows[None]).sum(2)
    np.fill_diagonal(squared, np.inf)
    neighbors = np.argsort(squared, axis=1, kind="stable")[:, :n_neighbors]
    near = np.take_along_axis(squared, neighbors, axis=1)
    return ArrayGraph(neighbors, np.exp(-near / (np.median(near) + 1e-12)).clip(0.05).astype(np.float32))


def blobs(seed, n_blobs=5, spread=0.35, n_rows=240):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_blobs, 3))[np.arange(n_rows) % n_blobs] + spread * rng.normal(size=(n_rows, 3))


GRAPHS = {
    "random": lambda seed: random_graph(200, 6, seed),
    "blobs": lambda seed: neighbor_graph(blobs(seed)),
    "a curve, whose eigenvalues lie close": lambda seed: neighbor_graph(
        np.sort(np.random.default_rng(seed).random(240))[:, None] * [[1.0, 0.0, 0.0]]
    ),
    "three components": lambda seed: neighbor_graph(blobs(seed, 3, 0.1) + 50 * (np.arange(240) % 3)[:, None]),
    "duplicates": lambda seed: neighbor_graph(blobs(seed)[np.arange(240) // 3 * 3]),
    "slots without an edge": lambda seed: random_graph(200, 6, seed, missing=0.5),
}


def perturbed(vectors, kind, size, rng):
    """Return E functions as a network might have learned them of exact ones (N, any)."""
    exact, rough = vectors[:, :E], rng.normal(size=(len(vectors), E))
    if kind == "rough":
        return exact + size * rough
    smooth = vectors[:, : 4 * E] @ rng.normal(size=(4 * E, E)) / math.sqrt(4 * E)
    if kind == "missed":
        exact = np.delete(vectors[:, : E + 1], 2, axis=1)
    return exact + size * smooth + 0.02 * size * rough


def judged(graph, functions, laplacian="random_walk"):
    """Return the certificate and the true errors (P,) against the lowest P exact functions, and the relative gap."""
    spectrum = dense_spectrum(graph, laplacian)
    root = np.sqrt(spectrum.mass)[:, None]
    matrix, degree = dense_laplacian(graph)
    scale = root * math.sqrt(degree.sum() if laplacian == "random_walk" else len(degree) * degree.mean())
    block = root * functions
    kept = ritz_pairs(block, (matrix / scale / scale.T) @ block).vectors[:, :P]
    exact = root * spectrum.vectors
    true = 1 - np.square(exact[:, :P].T @ kept).sum(axis=0)
    gap = (spectrum.values[P] - spectrum.values[P - 1]) / max(spectrum.values[P], 1e-300)
    return certified(functions, graph, P, laplacian), true, gap


@pytest.mark.parametrize("laplacian", ["random_walk", "unnormalized"])
@pytest.mark.parametrize("kind", ["smooth", "rough", "missed"])
@pytest.mark.parametrize("name", GRAPHS)
def test_bounds_hold_and_are_near_the_truth_where_there_is_a_gap(name, kind, laplacian):
    for seed in range(2):
        graph, rng = GRAPHS[name](seed), np.random.default_rng(seed)
        vectors = dense_spectrum(graph, laplacian).vectors
        for size in (0.003, 0.3):
            found, true, gap = judged(graph, perturbed(vectors, kind, size, rng), laplacian)
            told = f"{name}, {kind} {size}, seed {seed}: {found}"
            assert np.all(np.array(found.sin2) >= true * (1 - 1e-6) - 1e-9), f"{told}, true {true}"
            assert found.mean_sin2 >= true.mean() * (1 - 1e-6) - 1e-9, told
            if gap > 0.02 and found.converged:
                assert found.mean_sin2 <= 5 * true.mean() + 1e-8, f"{told}, true {true.mean()}"
            assert found.converged, told


def test_a_missed_function_is_named_and_the_run_called_bad():
    graph = neighbor_graph(blobs(0))
    vectors = dense_spectrum(graph).vectors
    found, true, _ = judged(graph, np.delete(vectors[:, : E + 1], 2, axis=1))
    assert (found.verdict, found.missed, found.doubtful) == ("bad", [3], [5])
    assert true.mean() == pytest.approx(1 / P)
    assert "exact ones that are missing: 3" in found.in_words
    assert "functions to trust: 1-4 of 5" in found.in_words


def test_a_function_missed_among_close_ones_is_not_proven_away():
    """A cube's eigenvalues lie close: a polynomial that damps far up lifts hundreds of functions as much as this."""
    n_rows, n_kept, rng = 1500, 12, np.random.default_rng(1)
    graph = neighbor_graph(rng.random((n_rows, 3)).astype(np.float32))
    spectrum = dense_spectrum(graph)
    others = np.delete(spectrum.vectors[:, :19], n_kept - 1, axis=1)
    noise = 0.03 * rng.normal(size=others.shape) * np.linalg.norm(spectrum.vectors[:, 1]) / math.sqrt(n_rows)
    found = certified(others + noise, graph, n_kept, "random_walk")
    true = 1 / n_kept  # at least: the function is in none of them
    assert true <= found.mean_sin2 <= 1.25 * true  # the close ones cost some hundredths each, more or less by the CPU
    assert (found.verdict, found.missed) == ("bad", [n_kept])


def test_without_random_columns_a_missed_function_would_not_be_seen(monkeypatch):
    graph = neighbor_graph(blobs(0))
    vectors = dense_spectrum(graph).vectors
    monkeypatch.setattr(subspace, "N_RANDOM", 0)
    functions = np.delete(vectors[:, : E + 1], 2, axis=1)  # it lies in no column; rounding alone brings it back
    monkeypatch.setattr(bounds, "CONFIDENCE", 0.07)
    assert judged(graph, functions)[0].verdict == "good"


def test_large_blocks_are_filtered_in_float32_and_end_as_exact(monkeypatch):
    graph = GRAPHS["a curve, whose eigenvalues lie close"](0)
    spectrum = dense_spectrum(graph)
    seen, product = [], graph_certified.sparse_product
    monkeypatch.setattr(subspace, "SINGLE_ENTRIES", 0)
    monkeypatch.setattr(
        graph_certified, "sparse_product", lambda matrix: lambda x: (seen.append(x.dtype), product(matrix)(x))[1]
    )
    learned = perturbed(spectrum.vectors, "smooth", 0.3, np.random.default_rng(0))
    _, _, found = polished_functions(learned, graph, P, "random_walk")
    assert found.converged
    assert seen.count(np.float32) > seen.count(np.float64)
    np.testing.assert_allclose(found.values[:P], spectrum.values[:P], atol=1e-6)
    seen.clear()
    exact = perturbed(spectrum.vectors, "smooth", 1e-6, np.random.default_rng(0))
    polished_functions(exact, graph, P, "random_walk")
    assert np.float32 not in seen, "it would be rougher than what is there"


def test_better_guesses_save_passes():
    graph = GRAPHS["a curve, whose eigenvalues lie close"](0)
    vectors = dense_spectrum(graph).vectors
    functions = perturbed(vectors, "smooth", 0.01, np.random.default_rng(0))[:, :P]
    alone = certified(functions, graph, P, "random_walk")
    better = certified(functions, graph, P, "random_walk", vectors[:, :E])
    assert better.converged
    assert better.passes < alone.passes
    assert better.mean_sin2 == pytest.approx(alone.mean_sin2, rel=0.6), (
        "(1 + SHARE)^2, for either ends when it is enough"
    )


def test_what_polished_functions_went_through_is_not_repeated():
    graph = GRAPHS["a curve, whose eigenvalues lie close"](0)
    vectors = dense_spectrum(graph).vectors
    learned = perturbed(vectors, "smooth", 0.03, np.random.default_rng(0))
    exact, _, found = polished_functions(learned, graph, P, "random_walk")
    taught = perturbed(vectors, "smooth", 0.01, np.random.default_rng(1))[:, :P]
    anew = certified(taught, graph, P, "random_walk", exact)
    taken_over = certified(taught, graph, P, "random_walk", exact, found.filters)
    assert taken_over.converged
    assert taken_over.passes == found.filters.n_passes + 1 < found.filters.n_passes + anew.passes
    assert taken_over.mean_sin2 == pytest.approx(anew.mean_sin2, rel=0.6)


def test_guesses_that_are_too_few_prove_nothing():
    graph = neighbor_graph(blobs(0))
    vectors, filters = dense_spectrum(graph).vectors, Filters(((0.5, 2.0),) * 9, 40, 0.5)
    complete = certified(vectors[:, :P], graph, P, "random_walk", vectors[:, 1:P], filters)
    lacking = certified(vectors[:, :P], graph, P, "random_walk", vectors[:, 1 : P - 1], filters)
    assert complete.passes == 41
    assert lacking == certified(vectors[:, :P], graph, P, "random_walk", vectors[:, 1 : P - 1]), "as from no filters"


@pytest.mark.parametrize("laplacian", ["random_walk", "unnormalized"])
def test_functions_are_judged_as_they_are_turned_and_not_as_ritz_functions(laplacian):
    """A function of one row, mixed in by a little, has an energy above all: Rayleigh-Ritz would sort by it."""
    graph = neighbor_graph(blobs(0))
    spectrum = dense_spectrum(graph, laplacian)
    rough = np.zeros_like(spectrum.vectors[:, :P])
    rough[0, 1] = 1.0
    functions, mass = spectrum.vectors[:, :P] + rough, spectrum.mass[:, None]
    values, directions = np.linalg.eigh(functions.T @ (mass * functions))
    rotation = directions @ np.diag(values**-0.5) @ directions.T
    kept = np.sqrt(mass) * (functions @ rotation)
    true = 1 - np.square((np.sqrt(mass) * spectrum.vectors[:, :P]).T @ kept).sum(axis=0)
    turned = certified(functions, graph, P, laplacian, rotation=rotation)
    assert np.all(np.array(turned.sin2) >= true * (1 - 1e-6) - 1e-9)
    assert np.argmax(turned.sin2) == np.argmax(true) == 1
    as_ritz = certified(functions, graph, P, laplacian)
    assert np.argmax(as_ritz.sin2) > 1, "the rough one is sorted behind others"
    assert turned.mean_sin2 == pytest.approx(as_ritz.mean_sin2, rel=0.1), "both are of one span"


def test_eigenvalues_of_a_polish_are_the_exact_ones():
    graph = neighbor_graph(blobs(1))
    spectrum = dense_spectrum(graph)
    found, _, _ = judged(graph, perturbed(spectrum.vectors, "smooth", 0.3, np.random.default_rng(0)))
    np.testing.assert_allclose(found.eigenvalues[:P], spectrum.values[:P], atol=5e-5)


def test_a_function_mixed_with_one_of_a_near_eigenvalue_is_called_mixed_and_not_bad():
    graph = neighbor_graph(blobs(0))
    spectrum = dense_spectrum(graph)
    first = 1 + next(i for i in range(3, 40) if spectrum.values[i + 1] < 1.02 * spectrum.values[i])
    functions = spectrum.vectors[:, : first + 6].copy()
    functions[:, first - 1] = functions[:, first] + functions[:, first - 1]
    functions = np.delete(functions, first, axis=1)
    found = certified(functions, graph, first, "random_walk")
    assert 0.5 / first <= found.mean_sin2 <= 2 * 0.5 / first
    assert (found.verdict, found.doubtful) == ("mixed", [])
    assert f"function {first} is mixed with {first + 1}" in found.in_words


def test_more_components_than_functions_need_no_polish():
    graph = neighbor_graph(np.repeat(np.arange(8.0), 30)[:, None] * 100 + np.random.default_rng(0).random((240, 3)))
    vectors = dense_spectrum(graph).vectors
    found = certified(vectors[:, :E], graph, P, "random_walk")
    assert (found.passes, found.n_near) == (0, 8)
    assert found.near_mean_sin2 < 1e-12
    assert found.verdict in ("good", "mixed")
    assert certified(np.random.default_rng(0).normal(size=(240, E)), graph, P, "random_walk").verdict == "bad"


def test_a_polish_out_of_passes_says_so_and_its_bound_holds(monkeypatch):
    graph = neighbor_graph(blobs(2))
    functions = perturbed(dense_spectrum(graph).vectors, "rough", 1.0, np.random.default_rng(0))
    monkeypatch.setattr(certificate, "most_passes", lambda entries: 1)
    found, true, _ = judged(graph, functions)
    assert not found.converged
    assert found.mean_sin2 >= true.mean()
    assert "may be far below this bound" in as_note(found.facts(), 100, "max_steps was reached")


def test_a_block_as_wide_as_the_rows_is_decomposed():
    graph = random_graph(20, 4)
    found, true, _ = judged(
        graph, dense_spectrum(graph).vectors[:, :E] + 0.1 * np.random.default_rng(0).random((20, E))
    )
    assert found.passes == 1
    np.testing.assert_allclose(found.sin2, true, rtol=1e-4, atol=1e-9)


def test_budget_of_passes_falls_with_the_graph():
    assert subspace.most_passes(1e3) == subspace.MOST_PASSES
    assert subspace.most_passes(1e12) == subspace.FEWEST_PASSES
    assert subspace.most_passes(1e9) == 150


def test_residuals_bound_the_error_where_nothing_is_missed():
    graph = neighbor_graph(blobs(3))
    spectrum = dense_spectrum(graph)
    matrix, degree = dense_laplacian(graph)
    root = np.sqrt(degree)[:, None]
    for size in (0.003, 0.03):
        block = root * perturbed(spectrum.vectors, "smooth", size, np.random.default_rng(0))
        own = ritz_pairs(block, (matrix / root / root.T) @ block)
        true = 1 - np.square((root * spectrum.vectors)[:, :P].T @ own.vectors[:, :P] / math.sqrt(degree.sum())).sum(0)
        found = of_residuals(own.values, own.residuals, P)
        assert np.all(np.array(found.sin2) >= true - 1e-9)
        assert (found.method, found.converged, found.missed) == ("residuals", False, [])


def test_standard_errors_widen_the_bound_of_residuals():
    values, residuals = np.array([0.0, 0.01, 0.5]), np.array([0.0, 0.02, 0.02])
    sure, unsure = of_residuals(values, residuals, 2), of_residuals(values, residuals, 2, np.full(3, 0.01))
    assert unsure.mean_sin2 > sure.mean_sin2
    assert sure.sin2[1] == pytest.approx((0.02 / (0.48 - 0.01)) ** 2)


def test_error_is_one_without_a_gap_and_zero_without_a_residual():
    np.testing.assert_array_equal(errors(np.array([0.0, 0.1, 0.1]), np.array([0.0, 0.2, 0.3]), 0.25), [0, 1, 1])


@pytest.mark.parametrize("gap", [0.001, 0.02, 0.5])
def test_errors_of_a_block_are_bounded_through_the_gap_behind_it(gap):
    rng, n_exact, n_inside = np.random.default_rng(0), 3, 6
    values = np.array([0.0, 0.1, 0.2, 0.2 * (1 + gap), 0.31, 0.32, 1.0, *np.linspace(1.0, 2.0, 40)])
    for size in (1e-4, 1e-3):
        block = np.eye(len(values))[:, : n_inside + 1] + size * rng.normal(size=(len(values), n_inside + 1))
        pairs = ritz_pairs(block, values[:, None] * block)
        true = 1 - np.square(pairs.vectors[:n_exact, :n_exact]).sum(axis=0)
        bound, beyond = errors_of_block(pairs.residuals, pairs.values, n_exact, n_inside)
        assert np.all(bound >= true - 1e-12)
        assert pairs.values[n_exact] - pairs.residuals[n_exact] <= beyond <= values[n_exact]
        if size <= gap / 100:
            assert bound.sum() < 5 * true.sum()
        if size < gap < 0.1:
            assert bound.sum() < 0.1 * errors_of_block(pairs.residuals, pairs.values, n_exact, n_exact)[0].sum()


def test_filters_that_lift_all_alike_find_nothing():
    """A filter that damps far up lifts a missed function and hundreds of others, which the block cannot hold."""
    alike, apart = (0.95, 2.0), (0.05, 2.0)
    assert Filters((alike,), 11, end=0.95).reach(5.0) > 0.5
    assert Filters((alike,) * 3, 31, end=0.05).reach(5.0) == 0
    found = Filters((alike, apart, apart), 31, end=0.05)
    assert 0 < found.reach(5.0) < 0.05
    assert found.gain(found.reach(5.0)) == pytest.approx(5)
    assert Filters(end=0.05).reach(5.0) == 0, (
        "before a filter nothing has grown, and a missed function may lie anywhere"
    )


def test_no_eigenvalue_is_bounded_beyond_where_all_were_found():
    values, residuals = np.array([0.0, 0.1, 0.2, 0.9]), np.full(4, 1e-3)
    bounds = [errors_of_block(residuals, values, 2, m, reach=0.15) for m in (2, 3)]
    for each, beyond in bounds:
        assert beyond <= 0.15
        assert np.all(each >= errors(residuals[:2], values[:2], 0.15) * (1 - 1e-12))
    assert best_of_block(residuals, values, 2, reach=0.0)[0] == 2, "nothing is known"


def test_near_values_leave_one_to_bound_by():
    assert n_near(np.array([0.0, 1.0, 1.05, 1.2]), 2) == 3
    assert n_near(np.array([0.0, 1.0, 1.05]), 2) == 2


def test_the_remedy_follows_from_how_training_ended():
    facts = {"words": "bad", "missed": [], "converged": True, "near_sin2": [0.0, 0.1, 0.3]}
    assert "budget of 100 steps, before a plateau; raise max_steps" in as_note(
        facts, 100, "max_steps was reached", {"train.max_steps": "max_steps"}
    )
    assert "widen the network" in as_note(facts, 100, "ritz_sum reached a plateau")
    assert "more rows a step" in as_note(facts, 100, "loss reached a plateau", section="distill")
    assert "raise distill.max_steps" in as_note(facts, 100, "max_steps was reached", section="distill")
    assert "oversampling" in as_note(facts | {"missed": [3]}, 100, "ritz_sum reached a plateau")


def test_a_note_says_that_the_doubtful_functions_lie_beyond_the_clusters():
    facts = {"words": "bad", "missed": [], "converged": True, "near_sin2": [0.0, 0.1, 0.3]}
    words = "The first 2, in which as many clusters lie above all, can be trusted."
    assert as_note(facts, 100, "max_steps was reached", n_clusters=2).endswith(words)
    assert words not in as_note(facts, 100, "max_steps was reached", n_clusters=3)
    assert words not in as_note(facts | {"near_sin2": [0.0, 0.1, 0.1]}, 100, "max_steps was reached", n_clusters=2)
    assert words not in as_note(facts, 100, "max_steps was reached")


def test_numbers_are_written_as_runs():
    assert numbers([1, 2, 3, 5, 7, 8]) == "1-3, 5, 7-8"
    assert numbers([]) == ""


def test_residuals_of_ritz_pairs_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(30, 30))
    matrix = matrix @ matrix.T
    block = rng.normal(size=(30, 4))
    block[:, 3] = block[:, 0]  # adds nothing
    pairs = ritz_pairs(block, matrix @ block)
    assert pairs.vectors.shape == (30, 3)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(3), atol=1e-10)
    left = np.linalg.norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.residuals, left, rtol=1e-6)


def test_a_polish_from_guesses_takes_fewer_rounds_than_one_from_noise():
    graph = neighbor_graph(blobs(0, n_rows=400))
    matrix, degree = dense_laplacian(graph)
    root = np.sqrt(degree)[:, None]
    operator, vectors = matrix / root / root.T, root * dense_spectrum(graph).vectors
    kernel = root / np.linalg.norm(root)

    def rounds(guesses):
        for n, state in enumerate(subspace_iteration(lambda x: operator @ x, guesses, kernel, P - 1, 2.0)):
            if state.pairs.residuals[: P - 1].max() < 1e-5:
                return n
        raise AssertionError

    rng = np.random.default_rng(0)
    assert rounds(vectors[:, :E] + 0.01 * rng.normal(size=(400, E))) < rounds(rng.normal(size=(400, E)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operator_is_symmetric_form_of_the_dense_laplacian(dtype):
    graph = random_graph(40, 5, missing=0.3)
    own = SymmetricLaplacian.of(graph, "random_walk")
    matrix, degree = dense_laplacian(graph)
    root = np.sqrt(degree)[:, None]
    image = own.product(np.eye(40, dtype=dtype))
    assert image.dtype == dtype
    expected = (matrix / root / root.T)[own.order][:, own.order]
    np.testing.assert_allclose(image, expected, atol=1e-12 if dtype == np.float64 else 1e-6)


def test_functions_come_back_to_the_rows_they_were_of():
    graph, rng = random_graph(40, 5, missing=0.3), np.random.default_rng(0)
    own = SymmetricLaplacian.of(graph, "random_walk")
    assert not np.array_equal(own.order, np.arange(40))
    functions = rng.normal(size=(40, 3))
    back = own.functions(own.symmetric(functions))
    np.testing.assert_allclose(back, functions * np.sqrt(40 * own.mass.mean()))
    degree = dense_laplacian(graph)[1]
    np.testing.assert_allclose(own.row_mass(), degree / degree.mean())


def test_facts_are_plain_and_tell_the_verdict():
    found = of_residuals(np.array([0.0, 0.01, 0.5]), np.array([0.0, 0.02, 0.02]), 2)
    assert found.facts() == dataclasses.asdict(found) | {"verdict": "good", "words": found.in_words}


@pytest.mark.parametrize(("mean", "above"), [(0.018, False), (0.06, True)])
def test_a_mean_within_its_limit_is_not_said_to_be_above_it(mean, above):
    found = of_residuals(np.array([0.0, 0.01, 0.011]), np.array([0.0, 0.02, 0.02]), 2)
    told = dataclasses.replace(
        found, converged=True, mean_sin2=mean, near_mean_sin2=mean, sin2=[0.0, 0.3], near_sin2=[0.0, 0.3]
    )
    assert told.verdict == "bad"
    assert ("above 0.02" in told.in_words) == above
    assert "functions to trust: 1 of 2" in told.in_words


def inexact_beyond(first, last, n_first=2):
    """Return facts of a certificate whose first functions and last six have such errors each."""
    sin2 = [first] * n_first + [last] * 6
    found = of_residuals(np.arange(9.0), np.zeros(9), 8)
    mean = float(np.mean(sin2))
    told = {"mean_sin2": mean, "near_mean_sin2": mean, "sin2": sin2, "near_sin2": sin2}
    return dataclasses.replace(found, converged=True, **told).facts()


def test_errors_count_as_far_as_clusters_follow_their_functions():
    facts, scale = inexact_beyond(0.001, 0.035), np.array([1.0] * 2 + [0.3] * 6)
    assert facts["verdict"] == "bad", "nobody knows yet what clusters make of them"
    told = as_weighed(facts, scale)
    assert told["verdict"] == "good"
    expected = (2 * 0.001 + 6 * 0.3**2 * 0.035) / (2 + 6 * 0.3**2)
    assert told["words"].endswith(f"trusted: mean sin^2 at most 0.027 ({expected:.2g} as clusters weigh them)")
    assert told["mean_sin2"] == facts["mean_sin2"], "the error itself is told as it is"
    assert as_weighed(facts, np.ones(8))["verdict"] == "bad"
    assert as_weighed(told, np.ones(8))["verdict"] == "bad", "weights are those of the clusters asked about"


def test_no_weight_hides_a_function_that_is_wrong_by_itself():
    told = as_weighed(inexact_beyond(0.0, 0.3), np.array([1.0] * 2 + [1e-3] * 6))
    assert told["verdict"] == "bad"
    assert "functions to trust: 1-2 of 8" in told["words"]


def test_weights_make_no_good_verdict_bad():
    facts = inexact_beyond(0.05, 0.0)
    assert facts["verdict"] == as_weighed(facts, np.array([1.0] * 2 + [0.1] * 6))["verdict"] == "good"


def test_wide_bounds_alone_prove_nothing():
    found = of_residuals(np.array([0.0, 0.01, 0.011]), np.array([0.0, 0.02, 0.02]), 2)
    assert found.verdict == "unproven"
    assert found.in_words.startswith("not proven: mean sin^2 at most 0.5, for residuals alone")
    ended = dataclasses.replace(found, method="polish")
    assert "the polish ended early" in ended.in_words
    note = as_note(ended.facts(), 100, "max_steps was reached")
    assert "the graph's is not proven: mean" in note
    assert "raise train.max_steps" in note
