"""A tool for verl's tool_agent that the quickstart's model "calls" with every answer: its masked output is two lines.

verl loads this file in its agent workers (rollout.multi_turn.function_tool_path), so the parser is known there, too.
"""

import json

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.function_tool import function_tool


@function_tool
def count_lines(text: str) -> str:
    """Count the lines of a text.

    Args:
        text: What is counted.
    """
    return f"lines:\n{len(text.splitlines())}\n"


@ToolParser.register("lines")
class LinesParser(ToolParser):
    async def extract_tool_calls(self, responses_ids, tools=None):
        text = self.tokenizer.decode(responses_ids, skip_special_tokens=True)
        return text, [FunctionCall(name="count_lines", arguments=json.dumps({"text": text}))]
