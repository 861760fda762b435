"""Rows of files that `limbeck new` reads, some with images."""

import base64
import json
import random
from io import BytesIO

from PIL import Image

CLAUSES = ("governing law", "renewal term", "audit rights", "cap on liability", "exclusivity")


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def clauses(count):
    rng = random.Random(0)
    return [
        {
            "instruction": f"What does clause {number} (of {rng.choice(CLAUSES)}) say?",
            "input": "",
            "output": f"Party {number} keeps at least {rng.uniform(1, 9):.2f} % [net] reserve.",
        }
        for number in range(count)
    ]


def pictured(count, *, name="scan{}.png", others=0):
    """Chats about images, as OpenAI and LLaVA write them, and some rows without any."""
    rows = [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": f"What is in image {n}?"},
                        {"type": "image_url", "image_url": {"url": name.format(n)}},
                    ],
                },
                {"role": "assistant", "content": f"A lung ({n})."},
            ]
        }
        if n % 2
        else {
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat does {n} show?"},
                {"from": "gpt", "value": "A heart."},
            ],
            "image": name.format(n),
        }
        for n in range(count)
    ]
    return rows + [{"question": f"Is {n} even?", "answer": str(n % 2 == 0)} for n in range(others)]


def inlined(count):
    """Chats whose images stand in the file itself, as OpenAI's clients send them."""
    urls = []
    for n in range(count):
        written = BytesIO()
        Image.new("RGB", (40, 40), (4 * n, 255 * (n % 2), 0)).save(written, "PNG")
        urls.append(f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}")
    written = json.dumps(pictured(count, name="<{}>"))
    for n, url in enumerate(urls):
        written = written.replace(f'"<{n}>"', f'"{url}"')
    return json.loads(written)


def draw(folder, count):
    folder.mkdir(exist_ok=True)
    for n in range(count):
        Image.new("L", (8, 8), n).save(folder / f"scan{n}.png")
