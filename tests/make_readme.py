"README.md from nbs/index.ipynb: markdown cells as they are, code cells as code, text outputs below; `--check` only compares"
import sys
from pathlib import Path
import nbformat

ROOT = Path(__file__).parents[1]

def readme() -> str:
    "The README as Markdown"
    parts = []
    for c in nbformat.read(ROOT/'nbs'/'index.ipynb', as_version=4).cells:
        if '#| hide' in c.source: continue
        parts.append(c.source if c.cell_type == 'markdown' else f'```python\n{c.source}\n```')
        if c.cell_type == 'code':
            text = ''.join(o.get('text', '') for o in c.outputs if o.output_type == 'stream').strip()
            if text: parts.append(f'```\n{text}\n```')
    return '<!-- made from nbs/index.ipynb by `make readme`: edit the notebook -->\n\n' + '\n\n'.join(parts) + '\n'

if __name__ == '__main__':
    f = ROOT/'README.md'
    if '--check' in sys.argv: sys.exit(f.read_text(encoding='utf-8') != readme() and 'README.md differs from nbs/index.ipynb: run `make readme`')
    f.write_text(readme(), encoding='utf-8')
