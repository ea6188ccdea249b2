from __future__ import annotations

from ollamad.http.openapi.document import document
from ollamad.http.openapi.table import APIS
from tests.endurance.fuzz import CREATES, MODEL, WORK_NAME, narrowed


def test_every_body_that_names_a_model_names_one_that_is_there() -> None:
    """Else nearly every request would end with "not found"."""
    schemas = narrowed(document(APIS))["components"]["schemas"]

    bodies = {name: one for name, one in schemas.items() if name.endswith("Request")}
    with_model = {name for name, one in bodies.items() if "model" in one["properties"]}
    assert len(with_model) > 5
    for name in with_model:
        assert "model" in bodies[name]["required"]
        wanted = WORK_NAME if name == CREATES else MODEL
        assert wanted in bodies[name]["properties"]["model"]["enum"]


def test_the_model_that_all_need_is_never_deleted() -> None:
    delete = narrowed(document(APIS))["paths"]["/api/delete"]["delete"]

    schema = delete["requestBody"]["content"]["application/json"]["schema"]
    assert MODEL not in schema["properties"]["model"]["enum"]
