"""Hooks of Schemathesis for tests/it/schemathesis.rs. Nothing is excepted from any check here. They do three things:

- give well-formed requests, every other time, ids that exist, as no schema can say which these are;
- log out and end sessions with sessions made for that, so that the run keeps its own;
- count statuses by operation, which the test judges: a run that never gets past 401 or 404 has tested nothing.

HAUS_FIXTURE names a file with `token`, `spare` ([{token, session}]), `credentials` ({email, password}),
`refreshToken`, `own`, `profiles`, `threads` and `counts`, the file to be written.
"""

import atexit
import collections
import itertools
import json
import os

import schemathesis

with open(os.environ["HAUS_FIXTURE"], encoding="utf-8") as file:
    FIXTURE = json.load(file)
COUNTS = collections.defaultdict(collections.Counter)
SPARE = iter(FIXTURE["spare"])
TURNS = collections.defaultdict(itertools.count)
FRESH = {"refreshToken": FIXTURE["refreshToken"]}


@atexit.register
def write_counts():
    with open(FIXTURE["counts"], "w", encoding="utf-8") as file:
        json.dump(COUNTS, file)


def turn(case):
    return next(TURNS[case.operation.label])


def one_of(values, number):
    return values[number % len(values)]


@schemathesis.auth(refresh_interval=None)
class Session:
    """The session of the run, and one of its own for each request that may end it."""

    def get(self, case, context):
        # Without something to set, `set` is not called.
        return FIXTURE["token"]

    def set(self, case, data, context):
        name = operation_of(case)
        token = data
        if name in ("logOut", "endSession"):
            spare = next(SPARE)
            token = spare["token"]
            if name == "endSession" and case.path_parameters and turn(case) % 2 == 0:
                case.path_parameters["id"] = spare["session"]
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {token}"


def operation_of(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def before_call(context, case, kwargs):
    name = operation_of(case)
    if name in ("logOut", "endSession"):
        return
    if case.meta is not None and case.meta.generation.mode.is_positive and turn(case) % 2 == 0:
        with_what_exists(name, case)


def with_what_exists(name, case):
    number = next(TURNS["all"])
    threads, profiles = FIXTURE["threads"], FIXTURE["profiles"]
    for parameter in case.path_parameters or {}:
        of_profile = parameter == "profileId" or name == "readProfile"
        case.path_parameters[parameter] = one_of(profiles if of_profile else threads, number)
    if not isinstance(case.body, dict):
        return
    if name == "changeMember" and number % 2 == 0:
        # The own nickname, which nobody is refused.
        case.path_parameters["profileId"] = FIXTURE["own"]
        case.body.pop("role", None)
    if name == "logIn":
        case.body = dict(FIXTURE["credentials"])
    elif name == "refresh":
        case.body = dict(FRESH)
    elif name == "sendMessage":
        case.body["mentions"] = case.body["replyToId"] = None
        case.body.pop("mentions")
    elif name == "createThread" and case.body.get("type") in ("DIRECT", "GROUP", "ANNOUNCE"):
        case.body["memberIds"] = [one_of(profiles, number)]
    elif name == "addMembers":
        case.body["profileIds"] = [one_of(profiles, number)]


@schemathesis.hook
def after_call(context, case, response):
    name = operation_of(case)
    # Checks also send other methods to the path of an operation.
    if response.request.method != case.operation.method.upper():
        return
    COUNTS[name][str(response.status_code)] += 1
    if name == "refresh" and response.status_code == 200:
        FRESH["refreshToken"] = json.loads(response.content)["refreshToken"]
