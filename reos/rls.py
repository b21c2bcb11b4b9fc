"""Who may read and write which rows, as the database's catalogue says, and what of it is out of line.

`reos rls` shows it, `reos doctor` asks it for its verdict, and tests/test_catalogue.py holds the same facts against
stricter rules. Nothing here names a table but the few exceptions, so a new one is covered by itself.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from reos import migrate, sql
from reos.migrate import MigrationError
from reos.sql import Statement

Row = dict[str, Any]

OWNER = "reos_owner"
WORKING_ROLES = ("reos_app", "reos_jobs")
OUR_ROLES = (*WORKING_ROLES, OWNER)
GRANTEES = (*WORKING_ROLES, "public")
TENANT_POLICY = "(organization_id = ( SELECT current_organization_id() AS current_organization_id))"

# What reos_app sees of tables that belong to no organisation: (table, command, which rows).
SHARED_POLICIES = {
    ("organizations", "ALL", TENANT_POLICY.replace("organization_id =", "id =")),
    ("permissions", "SELECT", "true"),
}
# Keyed by what is unique over all organisations, because no tenant is known when it is looked up.
GLOBAL_KEYS = {
    "login_identities_pkey": "an address logs in to one organisation",
    "organizations_pkey": "the tenants themselves",
    "organizations_slug_key": "a slug stands in addresses",
}
# pg_temp stands last: in front, where it is unless named, a caller's table would take the place of ours.
PINNED_PATH = re.compile(r"search_path=pg_catalog, (public, )?(procrastinate, )?pg_temp")

WIDTH = 120


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the statements of catalogue.sql give, in the order of `statements()`."""

    relations: list[Row]
    policies: list[Row]
    grants: list[Row]
    functions: list[Row]
    indexes: list[Row]
    foreign_keys: list[Row]
    roles: list[Row]

    @property
    def tables(self) -> list[Row]:
        """The tables that hold data of ours: the migrations' books are yoyo's."""
        return [row for row in self.relations if row["kind"] in "rp" and not row["is_migrations"]]

    @property
    def tenants(self) -> set[str]:
        """The tables whose rows belong to one organisation each."""
        return {row["label"] for row in self.tables if row["is_tenant"]}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is out of line: with what, and what it is, as a sentence."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def statements() -> list[Statement]:
    """The questions to the catalogue, in the order in which one would ask them."""
    asked = sql.load("catalogue")
    return [
        asked.list_relations,
        asked.list_policies,
        asked.list_grants,
        asked.list_functions,
        asked.list_indexes,
        asked.list_foreign_keys,
        asked.list_roles,
    ]


def read(dsn: str) -> Catalogue:
    """Ask the catalogue, which any log-in may read. Raises MigrationError when Postgres does not answer."""
    try:
        with migrate.connect(dsn) as conn, conn.transaction():
            conn.execute(sql.load("catalogue").bound_time.text)
            return ask(conn)
    except psycopg.Error as error:
        raise MigrationError(f"The catalogue cannot be read: {error.diag.message_primary or error}.") from error


def ask(conn: psycopg.Connection) -> Catalogue:
    """Ask the catalogue as the present transaction sees it."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return Catalogue(*(cursor.execute(statement.text).fetchall() for statement in statements()))


def problems(catalogue: Catalogue) -> list[Problem]:
    """What would let one organisation see or touch another's rows, or let the service do what it never needs."""
    found: list[Problem] = []
    for rule in (_roles, _relations, _policies, _keys, _foreign_keys, _functions, _grants):
        found += rule(catalogue)
    return found


# --- the rules ---------------------------------------------------------------------------------------------------

_POWERS = {
    "may_log_in": "log in",
    "is_superuser": "do anything, as a superuser",
    "bypasses_rls": "go past row security (BYPASSRLS)",
    "may_create_roles": "make roles",
    "may_create_databases": "make databases",
    "may_replicate": "replicate",
}


def _roles(catalogue: Catalogue) -> Iterator[Problem]:
    for name in sorted(set(OUR_ROLES) - {row["name"] for row in catalogue.roles}):
        yield Problem(name, "there is no such role; run `reos migrate`.")
    for row in catalogue.roles:
        for power, words in _POWERS.items():
            if row[power]:
                yield Problem(row["name"], f"may {words}.")
        if row["member_of"]:
            yield Problem(row["name"], f"is a member of {', '.join(row['member_of'])}.")


def _relations(catalogue: Catalogue) -> Iterator[Problem]:
    if not catalogue.tables:
        yield Problem("the database", "has none of the service's tables; run `reos migrate`.")
    readable = {row["object"] for row in catalogue.grants}
    for row in catalogue.relations:
        where = row["label"]
        if row["owner"] != OWNER:
            yield Problem(where, f"belongs to {row['owner']} instead of {OWNER}.")
        if row["kind"] in "mf" and where in readable:
            yield Problem(where, "knows no row security, being no plain table, and the service may read it.")
        if row["kind"] == "v" and not row["is_invoker"]:
            yield Problem(where, "is a view without security_invoker: who reads it sees what its owner sees.")
    for row in catalogue.tables:
        if not row["is_enabled"]:
            yield Problem(row["label"], "row security is off.")
        elif not row["is_forced"]:
            yield Problem(row["label"], "row security is not forced, so its owner's functions go past it.")


def _policies(catalogue: Catalogue) -> Iterator[Problem]:
    tenants = catalogue.tenants
    for row in catalogue.tables:
        roles = {role for policy in _policies_of(catalogue, row["label"]) for role in policy["roles"]}
        if row["is_tenant"] and "reos_app" not in roles:
            yield Problem(row["label"], "has no policy for reos_app, so the service sees none of its rows.")
        if OWNER not in roles:
            yield Problem(row["label"], f"has no policy for {OWNER}, so its functions and dumps see none of its rows.")
    for policy in catalogue.policies:
        if not policy["is_permissive"] or not {"public", "reos_app"} & set(policy["roles"]):
            continue  # It narrows, or is the owner's or the queue's.
        if policy["label"] in tenants:
            is_narrow = {policy["using_text"], policy["check_text"]} <= {TENANT_POLICY, None}
        else:
            is_narrow = (policy["label"], policy["command"], policy["using_text"]) in SHARED_POLICIES
        if "public" in policy["roles"] or not is_narrow:
            shown = _plain(policy["using_text"] or policy["check_text"] or "true")
            whom = ", ".join(policy["roles"])
            yield Problem(policy["label"], f"policy {policy['name']} lets {whom} at more than its own rows: {shown}.")


def _keys(catalogue: Catalogue) -> Iterator[Problem]:
    composite = set()
    for row in catalogue.indexes:
        if row["label"] not in catalogue.tenants or not row["is_unique"]:
            continue
        if (row["columns"] or [None])[0] == "organization_id" or row["name"] in GLOBAL_KEYS:
            composite |= {row["label"]} if row["is_primary"] else set()
        else:
            columns = ", ".join(row["columns"] or ["an expression"])
            yield Problem(row["label"], f"the key {row['name']} ({columns}) does not begin with organization_id.")
    for label in sorted(catalogue.tenants - composite):
        yield Problem(label, "has no primary key that begins with organization_id.")


def _foreign_keys(catalogue: Catalogue) -> Iterator[Problem]:
    for row in catalogue.foreign_keys:
        if row["target"] in catalogue.tenants:
            is_safe = row["columns"][0] == row["target_columns"][0] == "organization_id"
        else:
            is_safe = row["target"] != "organizations" or row["columns"] == ["organization_id"]
        if not is_safe:
            columns = ", ".join(row["columns"])
            text = f"the foreign key {row['name']} ({columns}) can point at another organisation's {row['target']}."
            yield Problem(row["label"], text)


def _functions(catalogue: Catalogue) -> Iterator[Problem]:
    for row in catalogue.functions:
        where = row["signature"]
        if row["is_public"]:
            yield Problem(where, "may be executed by public.")
        if row["is_definer"] and not PINNED_PATH.fullmatch(_path_of(row)):
            path = _path_of(row).removeprefix("search_path=") or "none"
            yield Problem(where, f"is a definer function whose search_path is not pinned as it should be: {path}.")
        if row["owner"] != OWNER:
            yield Problem(where, f"belongs to {row['owner']} instead of {OWNER}.")


def _grants(catalogue: Catalogue) -> Iterator[Problem]:
    queue = {row["label"] for row in catalogue.relations if row["schema"] == "procrastinate"}
    for (role, thing), rights in _rights(catalogue).items():
        names = {right.split(" ")[0] for right in rights}
        if role == "public" and not thing.startswith("schema "):
            yield Problem(thing, f"public has {', '.join(rights)} on it.")
        elif past := names & {"truncate", "references", "trigger", "create"}:
            yield Problem(thing, f"{role} has {', '.join(sorted(past))} on it, which asks no row security.")
        relation = thing.removeprefix("sequence ").removeprefix("schema ")
        if role == "reos_app" and (relation in queue or relation == "procrastinate"):
            yield Problem(thing, "reos_app has rights on the queue, which holds all organisations' jobs.")
        is_own = (
            relation in queue or thing.startswith("schema ") or (relation, rights) == ("_yoyo_migration", ["select"])
        )
        if role == "reos_jobs" and not is_own:
            yield Problem(thing, f"reos_jobs has {', '.join(rights)} on it, outside of the queue.")


def _policies_of(catalogue: Catalogue, label: str) -> list[Row]:
    return [row for row in catalogue.policies if row["label"] == label]


def _rights(catalogue: Catalogue) -> dict[tuple[str, str], list[str]]:
    """What each role may do with each thing, columns in parentheses."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in catalogue.grants:
        columns = f" ({row['columns']})" if row["columns"] else ""
        found.setdefault((row["role"], row["object"]), []).append(row["privilege"] + columns)
    return found


def _path_of(function: Row) -> str:
    return next((text for text in function["settings"] or [] if text.startswith("search_path=")), "")


# --- for people --------------------------------------------------------------------------------------------------


def report(catalogue: Catalogue) -> Iterator[str]:
    """The lines of the report. What is out of line begins with `!!`, at its place and once more at the end."""
    found = problems(catalogue)
    wrong: dict[str, list[Problem]] = {}
    for problem in found:
        wrong.setdefault(problem.where, []).append(problem)
    kinds = _policy_kinds(catalogue)
    plain = [row for row in catalogue.relations if row["kind"] in "rp"]
    tenants = [row for row in plain if row["is_tenant"]]
    ours = [row for row in plain if not row["is_tenant"] and row["schema"] == "public"]
    others = [row for row in plain if not row["is_tenant"] and row["schema"] != "public"]
    policies, rights = (
        "Policies: how many tables have it; name, roles, command, which rows",
        "owner, what others may do",
    )
    yield from _section("Roles", _role_lines(catalogue, wrong))
    yield from _section(policies, _policy_lines(catalogue, kinds))
    for title, tables in (("organisations", tenants), ("no organisation", ours), ("other schemas", others)):
        heading = f"Tables of {title}: row security, policies, {rights}"
        yield from _section(heading, _table_lines(catalogue, tables, kinds, wrong))
    yield from _section("Views, materialised views, foreign tables", _view_lines(catalogue, wrong))
    definers = "Definer functions, the only way around row security: owner, who may call it, search_path"
    yield from _section(definers, _function_lines(catalogue, wrong))
    yield from (f"!! {problem}" for problem in found)
    yield summary(catalogue)


def summary(catalogue: Catalogue) -> str:
    """One line: what there is, and how much of it is out of line."""
    forced = sum(row["is_enabled"] and row["is_forced"] for row in catalogue.tables)
    definers = sum(row["is_definer"] for row in catalogue.functions)
    number = len(problems(catalogue))
    return (
        f"{len(catalogue.tables)} tables, {len(catalogue.tenants)} of organisations, "
        f"{forced} with forced row security; {len(catalogue.policies)} policies; {definers} definer functions: "
        f"{f'{number} OUT OF LINE' if number else 'nothing is out of line'}."
    )


def questions() -> Iterator[str]:
    """The statements to paste into psql, each under what to look for."""
    for statement in statements():
        yield from (f"-- {line}" for line in statement.comment.splitlines())
        yield f"{statement.text};\n"


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield from (title, *(list(lines) or ["  none"]), "")


def _columns(*cells: tuple[str, int]) -> Iterator[str]:
    """Cells in a row, the last one wrapped below itself. What is too long for its column has a line of its own."""
    (last, _), indent = cells[-1], 2 + sum(width for _, width in cells[:-1])
    line = "  "
    for text, width in cells[:-1]:
        if len(text) >= width:
            yield line + text
            line = " " * (len(line) + width)
        else:
            line += text.ljust(width)
    lines = textwrap.wrap(last, WIDTH - indent) or [""]
    yield (line + lines[0]).rstrip()
    yield from (" " * indent + text for text in lines[1:])


def _marked(row_name: str, wrong: dict[str, list[Problem]]) -> Iterator[str]:
    yield from (f"  !! {problem.text}" for problem in wrong.get(row_name, []))


def _role_lines(catalogue: Catalogue, wrong: dict[str, list[Problem]]) -> Iterator[str]:
    for row in catalogue.roles:
        powers = [words for power, words in _POWERS.items() if row[power]]
        what = f"may {', '.join(powers)}" if powers else "no log-in, no superuser, no BYPASSRLS"
        yield from _columns((row["name"], 14), (what, 40), (f"taken by {', '.join(row['members']) or 'nobody'}", 0))
        yield from _marked(row["name"], wrong)


PolicyKind = tuple[str, ...]


def _kind_of(policy: Row) -> PolicyKind:
    """All that a policy says but its table: most tables have the same two."""
    texts = {"using": policy["using_text"], "check": policy["check_text"]}
    text = " ".join(f"{word} {_plain(expression)}" for word, expression in texts.items() if expression is not None)
    command = policy["command"].lower() + ("" if policy["is_permissive"] else ", narrows")
    return policy["name"], ", ".join(policy["roles"]), command, text


def _plain(expression: str) -> str:
    """A policy's expression as one would have written it."""
    text = re.sub(r"\( SELECT (\w+\(\)) AS \w+\)", r"(select \1)", expression)
    return text if text.startswith("(") else f"({text})"


def _policy_kinds(catalogue: Catalogue) -> dict[PolicyKind, str]:
    """A short name for each kind of policy, the most frequent first."""
    numbers = Counter(_kind_of(policy) for policy in catalogue.policies)
    return {
        kind: f"P{n}" for n, (kind, _) in enumerate(sorted(numbers.items(), key=lambda pair: (-pair[1], pair[0])), 1)
    }


def _policy_lines(catalogue: Catalogue, kinds: dict[PolicyKind, str]) -> Iterator[str]:
    numbers = Counter(_kind_of(policy) for policy in catalogue.policies)
    for kind, short in kinds.items():
        name, roles, command, text = kind
        yield from _columns((short, 5), (f"{numbers[kind]:>3}", 6), (name, 12), (roles, 24), (command, 10), (text, 0))


def _table_lines(
    catalogue: Catalogue, tables: list[Row], kinds: dict[PolicyKind, str], wrong: dict[str, list[Problem]]
) -> Iterator[str]:
    rights = _rights(catalogue)
    for table in tables:
        label = table["label"]
        policies = " ".join(kinds[_kind_of(policy)] for policy in _policies_of(catalogue, label)) or "none"
        given = [f"{role}: {', '.join(rights[role, label])}" for role in GRANTEES if (role, label) in rights]
        cells = (label, 31), (_state(table), 12), (policies, 8), (table["owner"], 13)
        yield from _columns(*cells, ("; ".join(given) or "-", 0))
        yield from _marked(label, wrong)


def _state(table: Row) -> str:
    if table["is_enabled"]:
        return "forced" if table["is_forced"] else "NOT FORCED"
    return "none" if table["is_migrations"] else "OFF"


def _view_lines(catalogue: Catalogue, wrong: dict[str, list[Problem]]) -> Iterator[str]:
    kinds = {"v": "view", "m": "materialised view", "f": "foreign table"}
    for row in catalogue.relations:
        if row["kind"] in kinds:
            eyes = "rights of who asks" if row["is_invoker"] else "RIGHTS OF ITS OWNER"
            yield from _columns((row["label"], 31), (kinds[row["kind"]], 21), (eyes, 0))
            yield from _marked(row["label"], wrong)


def _function_lines(catalogue: Catalogue, wrong: dict[str, list[Problem]]) -> Iterator[str]:
    for row in catalogue.functions:
        if row["is_definer"]:
            callers = ", ".join(["public"] if row["is_public"] else row["executed_by"]) or "nobody"
            called_by = "triggers" if row["is_trigger"] and not row["is_public"] else callers
            path = _path_of(row).removeprefix("search_path=") or "NO SEARCH_PATH"
            signature = row["signature"].replace("timestamp with time zone", "timestamptz")
            yield from _columns((signature, 45), (row["owner"], 13), (called_by, 12), (path, 0))
            yield from _marked(row["signature"], wrong)
        else:
            yield from _marked(row["signature"], wrong)
