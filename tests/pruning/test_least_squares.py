"""The fitted change of a weight is the one of least squares."""

import torch

from limbeck.pruning.least_squares import Regression, solve_ridge

torch.manual_seed(0)
GIVEN = torch.randn(200, 6)
MISSING = torch.randn(200, 3)


def solve(given, missing, damping_ratio):
    regression = Regression()
    for part in range(0, len(given), 50):
        regression.add(given[part : part + 50], missing[part : part + 50])
    assert regression.num_tokens == len(given)
    return regression.solve(damping_ratio=damping_ratio).float()


def test_without_damping_it_is_the_solution_of_torch():
    expected = torch.linalg.lstsq(GIVEN, MISSING).solution.T
    torch.testing.assert_close(solve(GIVEN, MISSING, 1e-12), expected)


def test_what_the_columns_explain_is_found_whole():
    change = torch.randn(3, 6)
    torch.testing.assert_close(solve(GIVEN, GIVEN @ change.T, 1e-12), change)


def test_damping_adds_a_share_of_the_mean_square_to_each_column():
    """Ridge regression is least squares with rows of its own, one for each column."""
    damping = 0.3 * GIVEN.square().mean() * len(GIVEN)
    given = torch.cat([GIVEN, damping.sqrt() * torch.eye(6)])
    expected = torch.linalg.lstsq(given, torch.cat([MISSING, torch.zeros(6, 3)])).solution.T
    torch.testing.assert_close(solve(GIVEN, MISSING, 0.3), expected)


def test_columns_that_are_never_used_do_not_change():
    given = GIVEN.clone()
    given[:, 2] = 0
    assert (solve(given, MISSING, 0.01)[:, 2] == 0).all()
    nothing = solve_ridge(torch.zeros(6, 6), torch.zeros(3, 6), damping_ratio=0.01)
    assert torch.equal(nothing, torch.zeros(3, 6))


def test_numbers_that_are_not_finite_stay_visible():
    given = GIVEN.clone()
    given[7, 1] = float("inf")
    assert not solve(given, MISSING, 0.01).isfinite().all()
