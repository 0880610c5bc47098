"""Of transformers' own `__init__`, which makes thousands of names at import time, what is used here.

To bind the real one takes pyright half a minute.
"""

from typing import Any

from transformers.modeling_utils import PreTrainedModel as PreTrainedModel

def __getattr__(name: str) -> Any: ...
