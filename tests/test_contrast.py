"The edges of the contrast between class channels and class sentences (Eq. 5 to 7)"

import pytest
import torch

from atm_net.anatomy import InputError
from atm_net.contrast import pool_words


def test_tokens_count_alike():
    states = torch.tensor([[1.0], [2.0], [9.0]])
    assert pool_words(states, torch.tensor([True, True, True])).item() == 4.0


def test_level_ranks_are_no_mask():
    "A rank would weigh its token: 1, 2 and 9 with the ranks 1, 2 and 5 gave 6.25 in place of 4"
    states = torch.tensor([[1.0], [2.0], [9.0]])
    for ranks in (torch.tensor([1, 2, 5], dtype=torch.uint8), torch.tensor([0, 1, 2])):
        with pytest.raises(InputError, match='not bool'):
            pool_words(states, ranks)
