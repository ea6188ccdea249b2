"""Chat templates for the wire: what a model could bring that thinks, or that calls tools."""

from __future__ import annotations

from typing import Final

THINKING: Final = (
    "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<think>"
    "{{ m.reasoning_content }}</think>{% endif %}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
OPENING: Final = THINKING.replace("assistant: {% endif %}", "assistant: <think>{% endif %}")
"""The prompt itself opens the thinking."""
TOOLS: Final = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
