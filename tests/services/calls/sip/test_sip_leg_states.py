"""Every pair of state and input of a SIP leg is a row or has its reason."""

from __future__ import annotations

import pytest

from isthmus.services.calls.sip.leg_states import (
    CALLEE_IGNORED,
    CALLEE_STEPS,
    CALLER_IGNORED,
    CALLER_STEPS,
    CalleeInput,
    CalleeState,
    CallerInput,
    CallerState,
)


@pytest.mark.parametrize("state", CallerState)
def test_a_caller_leg_knows_what_to_do(state: CallerState) -> None:
    assert CALLER_STEPS[state].keys() | CALLER_IGNORED[state].keys() == set(CallerInput)
    assert not CALLER_STEPS[state].keys() & CALLER_IGNORED[state].keys()


@pytest.mark.parametrize("state", CalleeState)
def test_a_callee_leg_knows_what_to_do(state: CalleeState) -> None:
    assert CALLEE_STEPS[state].keys() | CALLEE_IGNORED[state].keys() == set(CalleeInput)
    assert not CALLEE_STEPS[state].keys() & CALLEE_IGNORED[state].keys()
