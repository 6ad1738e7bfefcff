"""The map of the paper resolves, links lead somewhere, addresses come from settings.ini; and the
whole site in a headless browser"""

import functools
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from conftest import ROOT, console_scripts, function_of
from file_server import serving
from make_readme import OPENED, binder, colab, files, settings
from notebooks import LESSONS, NBS, NOTEBOOKS, module_of
from notebooks import notebook as found
from test_browser import CHROMIUM, FLAGS, need_browser
from test_house import tracked

MAP = yaml.safe_load((ROOT / 'docs' / 'paper_map.yaml').read_text(encoding='utf-8'))


@functools.cache
def notebook(path):
    return nbformat.read(path, as_version=4)


def prose(text):
    return re.sub(r'```.*?```', '', text, flags=re.S)


def headings(text):
    return [m.strip() for m in re.findall(r'^#{1,6} +(.+)$', prose(text), re.M)]


# --- the map from the paper to the code


def unresolved(e: dict) -> list:  # of complaints
    "What an entry of the map names and is not there"
    path = found(e['notebook'])
    bad = []
    if not path:
        return [f'{e["paper"]}: no notebook {e["notebook"]}']
    if e['heading'] not in [
        h for c in notebook(path).cells if c.cell_type == 'markdown' for h in headings(c.source)
    ]:
        bad.append(f'{e["paper"]}: no heading {e["heading"]!r}')
    own = [f for f in e['functions'] if f.split('.')[0] == module_of(path)]
    if not own:
        bad.append(f'{e["paper"]}: nothing that {path.stem} exports')
    for f in e['functions']:
        m, name = f.split('.')
        spec = importlib.util.find_spec(f'atm_net.{m}')
        module = importlib.import_module(f'atm_net.{m}') if spec else None
        if not module or name not in module.__all__ or not hasattr(module, name):
            bad.append(f'{e["paper"]}: {f} is not exported')
    for t in e['tests']:
        if '::' in t:
            file, name = t.split('::')
            p = ROOT / 'tests' / file
            ok = p.exists() and re.search(rf'^def {name}\(', p.read_text(encoding='utf-8'), re.M)
        else:
            book, cell = t.split('#')
            p = found(book)
            ok = p and any(
                c.id == cell
                and c.cell_type == 'code'
                and re.search(r'\b(test_\w+|test|assert\w*)\b', c.source)
                for c in notebook(p).cells
            )
        if not ok:
            bad.append(f'{e["paper"]}: no test {t}')
    return bad + ([] if e['tests'] else [f'{e["paper"]}: no test'])


@pytest.mark.parametrize('entry', MAP['entries'], ids=lambda e: e['paper'])
def test_entry_resolves(entry):
    assert unresolved(entry) == []


def test_unresolved_notices():
    good = MAP['entries'][0]

    def says(**kw):
        return [b.split(': ', 1)[1] for b in unresolved(good | kw)]

    assert (
        says() == []
        and says(notebook='77_none') == ['no notebook 77_none']
        and says(heading='Eq. 99') == ["no heading 'Eq. 99'"]
        and says(tests=[]) == ['no test']
    )
    assert says(functions=['fusion.SelfEnhance', 'fusion.nobody', 'nowhere.f']) == [
        'fusion.nobody is not exported',
        'nowhere.f is not exported',
    ]
    assert says(functions=['model.ATMNet']) == ['nothing that 40_fusion exports'] and says(
        tests=['40_fusion#c016', '40_fusion#zzz', 'test_site.py::test_no']
    ) == ['no test 40_fusion#c016', 'no test 40_fusion#zzz', 'no test test_site.py::test_no']


def test_the_map_is_complete():
    "Eight equations, five tables, six figures, each once and in order"
    assert MAP['complete'] == {'Eq.': 8, 'Table': 5, 'Fig.': 6}
    named = [e['paper'] for e in MAP['entries'] if not e['paper'].startswith('Sec.')]
    assert named == [f'{k} {i}' for k, n in MAP['complete'].items() for i in range(1, n + 1)]


# --- links between files


def texts() -> dict:  # file -> Markdown
    "What people read in the repository"
    return {p: texts_of(p) for p in tracked() if p.suffix in ('.md', '.ipynb')}


def slugs(p: Path) -> set:
    "The anchors of a file, as GitHub and the site make them"
    text = texts_of(p)
    return {re.sub(r'\s', '-', re.sub(r'[^\w\s-]', '', h.lower())) for h in headings(text)}


def texts_of(p):
    return (
        p.read_text(encoding='utf-8')
        if p.suffix == '.md'
        else '\n\n'.join(c.source for c in notebook(p).cells if c.cell_type == 'markdown')
    )


def broken(p: Path, text: str) -> list:
    "Links and named files that are not there"
    plain = prose(text)
    bad = []
    for link in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', plain)):
        if re.match(r'\w+:', link):
            continue
        file, _, at = unquote(link).partition('#')
        target = (p.parent / file).resolve() if file else p
        if not target.exists() or at and at not in slugs(target):
            bad.append(link)
    return bad + [
        f
        for f in re.findall(r'`((?:nbs|docs|tests|atm_net|benchmarks)/[\w./-]+\w)`', plain)
        if not (ROOT / f).exists()
    ]


def test_links_lead_somewhere():
    found = texts()
    assert len(found) > 40 and sum('](' in t for t in found.values()) >= 10
    assert {str(p.relative_to(ROOT)): b for p, t in found.items() if (b := broken(p, t))} == {}


def test_broken_notices():
    p = ROOT / 'README.md'
    assert (
        broken(
            p,
            '[a](CONTRIBUTING.md) `nbs/index.ipynb` [b](https://example.org/x) ```\n[c](none)\n```',
        )
        == []
    )
    assert broken(
        p, '[a](nowhere.md) [b](CONTRIBUTING.md#no-such-heading) `nbs/99_none.ipynb`'
    ) == ['nowhere.md', 'CONTRIBUTING.md#no-such-heading', 'nbs/99_none.ipynb']


# --- one address, and what runs on machines elsewhere


def test_addresses_come_from_settings_alone():
    "Another address in settings.ini, and nothing that the script writes knows the old one"
    s = dict(settings())
    old = s['git_url']
    user, repo = old.split('/')[-2:]
    moved = '\n'.join(
        text
        for text in files(
            s | dict(git_url='https://github.com/somebody/lumbar', branch='dev')
        ).values()
    )
    assert (
        f'{user}/{repo}' not in moved
        and moved.count('somebody/lumbar') >= 3 * len(OPENED)
        and 'somebody/lumbar/blob/dev/nbs/workshop/01_reading_mri.ipynb' in moved
    )
    for p in texts():
        assert (
            f'{user}/{repo}' not in texts_of(p)
            or p.name in ('README.md', 'index.ipynb')
            or p in OPENED
        ), f'{p.name} has the address of its own'


def test_the_repository_is_as_the_script_writes_it():
    assert [p.name for p, text in files().items() if p.read_text(encoding='utf-8') != text] == []


def test_badges():
    s = settings()
    lesson = binder('nbs/workshop/01_reading_mri.ipynb')
    branch = f'https://mybinder.org/v2/gh/{s["user"]}/{s["repo"]}/{s["branch"]}'
    assert lesson == f'{branch}?urlpath=lab/tree/student/01_reading_mri.ipynb'
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert (
        colab('nbs/walkthroughs/00_tour.ipynb') in readme
        and binder('nbs/walkthroughs/01_explorer.ipynb') in readme
        and f'git clone {s["git_url"]} ' in readme
    )


def names(file):
    return [
        re.split(r'[=<>]', line)[0].lower().replace('_', '-')
        for line in (ROOT / file).read_text(encoding='utf-8').splitlines()
        if line and line[0] not in '#-'
    ]


def test_binder():
    "The versions of the lock, the tested Python, commands that exist"
    lines = (ROOT / 'binder' / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    assert (
        names('binder/requirements.txt') == []
        and '-r ../requirements.lock' in lines
        and any('whl/cpu' in line for line in lines)
    )
    assert ((ROOT / 'binder').resolve() / '../requirements.lock').exists() and (
        ROOT / 'binder' / 'runtime.txt'
    ).read_text(encoding='utf-8').strip() == f'python-{settings()["min_python"]}'
    post = ROOT / 'binder' / 'postBuild'
    text = post.read_text(encoding='utf-8')
    assert (
        text.startswith('#!')
        and os.access(post, os.X_OK)
        and subprocess.run(['bash', '-n', str(post)], check=False).returncode == 0
    )
    assert (
        set(re.findall(r'^(atm_\w+)', text, re.M)) == {'atm_workshop'} <= set(console_scripts())
        and 'atm_workshop student ' in text
    )


def test_locks():
    "What the site needs is pinned beside what the kit needs, not in its place"
    site, kit = names('requirements-site.lock'), names('requirements.lock')
    assert set(site) & set(kit) == set()
    assert {
        re.split(r'[<>=]', r)[0].lower() for r in settings()['site_requirements'].split()
    } <= set(site)
    assert all(
        re.match(r'^[\w.-]+==[\w.]+$', line)
        for line in (ROOT / 'requirements-site.lock').read_text(encoding='utf-8').splitlines()
    )


# --- pages before Sphinx reads them


@pytest.fixture(scope='module')
def build():
    "docs/build.py as a module; it needs nothing that only the site needs"
    spec = importlib.util.spec_from_file_location('site_build', ROOT / 'docs' / 'build.py')
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


def test_api_names_everything(build):
    "Every public name of every module once, with a way back to its section"
    for path in NOTEBOOKS:
        page = build.api(path)
        m = module_of(path)
        assert [
            n
            for n in importlib.import_module(f'atm_net.{m}').__all__
            if page.count(f'({build.anchor(m, n)})=\n') != 1
        ] == []
        assert page.count('Built in [') == page.count('\n## ') > 0


def test_api_of_a_function(build):
    import ast

    from api import comments, function  # docs/ is on the path by then

    source = """def f(
    a:int, b, # rows, columns
    *rest, # more
    c:str='x # y', # a word
)->float: # mm
    'What it does to `a_b` and c_d'
    return 1. # not this
"""
    page = function(ast.parse(source).body[0], comments(source))
    signature = "f(a: int, b, *rest, c: str='x # y') -> float"
    assert page.startswith(f'```python\n{signature}\n```\n\nWhat it does to `a_b` and c\\_d\n')
    assert page.endswith('**Returns** `float` mm') and 'not this' not in page
    for row in (
        '`a` | `int` |  | rows, columns',
        '`b` |  |  | rows, columns',
        '`*rest` |  |  | more',
        "`c` | `str` | `'x # y'` | a word",
    ):
        assert f'| {row} |' in page


def test_page_of_a_lesson(build):
    """Marks, solutions and what was printed by a check are gone; words between backticks lead to
    their pages"""
    from nbformat.v4 import new_code_cell as code
    from nbformat.v4 import new_markdown_cell as md
    from nbformat.v4 import new_notebook, new_output

    shown = new_output('display_data', {'image/png': 'x', 'text/plain': '<Figure>'})
    widget = new_output('display_data', {build.WIDGET: {}, 'text/plain': 'Slider()'})
    nb = new_notebook(
        cells=[
            md('# A'),
            md('<!-- notes -->\nsecret'),
            md('# B\n`40_fusion` and `TextFusion`, `nobody`\n```\n`40_fusion`\n```'),
            code('#| export\ndef f(): pass', outputs=[shown, widget]),
            code('#| hide\nsecret'),
            code('#| solution x\nsecret'),
            code('#| check x\ncheck()', outputs=[new_output('stream', text='secret')]),
        ]
    )
    path = NBS / 'workshop' / '04_attention_hasf.ipynb'
    p = build.page(nb, path, build.targets())
    text = '\n'.join(c.source for c in p.cells)
    assert (
        'secret' not in nbformat.writes(p)
        and '#|' not in text
        and [c.source.count('## B') for c in p.cells][1] == 1
        and text.count('(sec-workshop-04_attention_hasf-') == 2
    )
    assert (
        '[`40_fusion`](../../nbs/4_network/40_fusion.ipynb) and '
        '[`TextFusion`](#api-fusion-textfusion), `nobody`\n```\n`40_fusion`\n```' in text
    )
    made = next(c for c in p.cells if c.cell_type == 'code')
    assert (
        made.metadata.tags == ['exported']
        and [list(o.data) for o in made.outputs] == [['image/png'], ['text/plain']]
        and nb.cells[3].source.startswith('#| export')
    )


# --- how-to pages, glossary, and where the site is published

HOW_TO = sorted((ROOT / 'docs' / 'howto').glob('*.md'))
CODE = re.compile(r'```bash\n(.*?)```', re.S)


def test_how_to_pages_are_found(build):
    "In the menu, in the list of them, and short"
    names = {p.relative_to(ROOT).as_posix() for p in HOW_TO}
    index = (ROOT / 'docs' / 'howto' / 'index.md').read_text(encoding='utf-8')
    assert set(build.HOW_TO) == names and len(names) >= 8
    assert [p.name for p in HOW_TO if p.stem != 'index' and f']({p.name})' not in index] == []
    sizes = {p.name: len(p.read_text(encoding='utf-8').split()) for p in HOW_TO}
    assert {name: size for name, size in sizes.items() if size > 500} == {}


def commands_in(text: str) -> list:  # of (command, names of its options)
    "The kit's commands in the code of a page, with the options that are typed"
    lines = '\n'.join(CODE.findall(text)).splitlines()
    typed = [m for line in lines if (m := re.match(r'(?:\w+=\S+ )*(atm_\w+)([^#]*)', line))]
    return [(m[1], re.findall(r'--([\w-]+)', m[2])) for m in typed]


def unknown_options(text: str) -> list:
    "What a page types and no command has"
    bad = []
    for command, options in commands_in(text):
        if command not in console_scripts():
            bad.append(command)
            continue
        known = inspect.signature(inspect.unwrap(function_of(command))).parameters
        names = {o: o.removeprefix('no-').replace('-', '_') for o in options}
        bad += [f'{command} --{o}' for o, name in names.items() if name not in known]
    return bad


@pytest.mark.parametrize('page', HOW_TO, ids=lambda p: p.stem)
def test_commands_of_how_to_pages_exist(page):
    assert unknown_options(page.read_text(encoding='utf-8')) == []


def test_unknown_options_notices():
    text = '```bash\natm_nothing a\nX=1 atm_train c r --no-hasf --stepz 3  # --later\n```'
    assert unknown_options(text) == ['atm_nothing', 'atm_train --stepz']


GLOSSARY = ROOT / 'docs' / 'glossary.md'


def test_glossary_entries():
    "A term, one to three sentences, and the notebook in which it is at home"
    lines = GLOSSARY.read_text(encoding='utf-8').splitlines()
    entries = [line for line in lines if line.startswith('- ')]
    form = re.compile(r'- \*\*[^*]+\.\*\* .+[.)] \[\d\d_\w+\]\(\.\./nbs/\S+\.ipynb\)')
    assert len(entries) > 50 and [e for e in entries if not form.fullmatch(e)] == []
    terms = [re.match(r'- \*\*(.+?)\.\*\*', e)[1] for e in entries]
    assert len(set(terms)) == len(terms)


def test_notebooks_lead_to_the_glossary():
    "README and every notebook of prompts, network and masks"
    chapters = ('3_prompts', '4_network', '5_masks')
    books = [p for p in NOTEBOOKS if p.parent.name in chapters]
    without = [p.name for p in books if '(../../docs/glossary.md#' not in texts_of(p)]
    assert without == [] and '(docs/glossary.md)' in texts_of(ROOT / 'README.md')


def test_the_site_is_published():
    "The workflow builds with the target that people use, and publishes what that target writes"
    file = ROOT / '.github' / 'workflows' / 'site.yml'
    jobs = yaml.safe_load(file.read_text(encoding='utf-8'))['jobs']
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    steps = jobs['build']['steps']
    assert 'make site' in [s.get('run', '').split('   #')[0].strip() for s in steps]
    uploaded = [s['with']['path'] for s in steps if 'upload-pages' in s.get('uses', '')]
    assert uploaded == ['_site'] and 'docs/build.py _site' in makefile
    python = [s['with']['python-version'] for s in steps if 'setup-python' in s.get('uses', '')]
    assert python == [settings()['min_python']] and jobs['publish']['needs'] == 'build'


# --- the site itself


def need_tools():
    if importlib.util.find_spec('sphinx') and importlib.util.find_spec('myst_nb'):
        return need_browser()
    if os.environ.get('ATM_NET_BROWSER') == 'required':
        pytest.fail('no Sphinx: `make site` installs what the site needs')
    pytest.skip('no Sphinx: `make site` installs what the site needs')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder that `make site` makes"
    need_tools()
    out = tmp_path_factory.mktemp('site') / '_site'
    r = subprocess.run(
        [sys.executable, str(ROOT / 'docs' / 'build.py'), str(out)],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert r.returncode == 0, r.stderr[-3000:]
    return out


def links_out(name: str, text: str, pages: dict) -> list:
    "Links of a page to files that are no pages of the site"
    out = []
    for link in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', prose(text))):
        file = unquote(link).partition('#')[0]
        if re.match(r'\w+:', link) or not file or link.startswith('#'):
            continue
        target = os.path.normpath(os.path.join(os.path.dirname(name), file))
        if target not in pages and not target.startswith('nbs/images/'):
            out.append(link)
    return out


def test_links_of_a_page_stay_in_the_site(build):
    pages = build.pages(build.settings())
    found = {}
    for name, text in pages.items():
        if name.endswith('.md'):
            found[name] = links_out(name, text, pages)
    assert {name: links for name, links in found.items() if links} == {}
    assert links_out('results/x.md', '[a](x.json) [b](../index.md)', pages) == ['x.json']


@pytest.mark.slow
def test_no_folder_of_somebody_else(tmp_path):
    need_tools()
    (tmp_path / 'mine.txt').write_text('keep', encoding='utf-8')
    r = subprocess.run(
        [sys.executable, str(ROOT / 'docs' / 'build.py'), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert r.returncode and 'choose another folder' in r.stderr and (tmp_path / 'mine.txt').exists()


@pytest.fixture(scope='module')
def address(site):
    "The same from a server on this machine"

    with serving(site) as at:
        yield f'{at}/'


@pytest.fixture(scope='module')
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()


LOOK = """() => {
  const all = what => [...document.querySelectorAll(what)];
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const held = e => {
    for (let p = e.parentElement; p && p.tagName != 'BODY'; p = p.parentElement)
      if (scrolls(p)) return true;
    return false;
  };
  const sticks = e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !held(e);
  };
  return {
    sticks: all('article *').filter(sticks).map(e => e.tagName + '.' + e.className).slice(0, 3),
    links: all('a[href]').map(a => a.href),
    ids: all('[id]').map(e => e.id),
    wide: document.documentElement.scrollWidth,
    broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
    pictures: all('.cell_output img').length,
    formulas: all('math').length,
    text: all('article p, article li, article h2').map(e => e.innerText).join(' '),
  };
}"""


def crawl(chromium, address) -> tuple:  # page -> what LOOK saw; addresses that were asked for
    "Every page that a link leads to, at the width of a phone"
    view = chromium.new_page(viewport=dict(width=390, height=800))
    asked = []
    view.on('request', lambda r: asked.append(r.url))
    todo, seen = ['index.html'], {}
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        view.goto(address + page)
        seen[page] = view.evaluate(LOOK)
        own = [link for link in seen[page]['links'] if link.startswith(address)]
        paths = [unquote(urlsplit(link).path[1:]) for link in own]
        todo += [p for p in paths if p.endswith('.html') and p not in seen]
    view.close()
    return seen, asked


def faults_of_page(page, seen) -> list:
    "What is wrong with what was seen on a page, links apart"
    bad = [f'{page}: broken picture {u[:80]}' for u in seen['broken']]
    if seen['wide'] > 390:
        bad.append(f'{page}: {seen["wide"]} px wide on a phone')
    bad += [f'{page}: {e} sticks out on a phone' for e in seen['sticks']]
    raw = re.findall(r'\$\$|\\(?:frac|mathrm|mathbf|alpha)\b', seen['text'])
    return bad + [f'{page}: formula not drawn: {m}' for m in raw[:1]]


def broken_links(page, seen, address, site) -> list:
    "Links of a page to files or anchors that the site lacks"
    bad = []
    for link in seen[page]['links']:
        if not link.startswith(address):
            continue
        parts = urlsplit(link)
        to = unquote(parts.path[1:]) or 'index.html'
        if not (site / to).is_file():
            bad.append(f'{page}: no {to}')
        elif parts.fragment and to in seen and unquote(parts.fragment) not in seen[to]['ids']:
            bad.append(f'{page}: no {to}#{parts.fragment}')
    return bad


def faults(seen, asked, address, site) -> list:
    "What is wrong with what the crawl saw"
    bad = [f'asked elsewhere: {u}' for u in asked if not u.startswith((address, 'data:'))]
    for page in seen:
        bad += faults_of_page(page, seen[page])
        bad += broken_links(page, seen, address, site)
    return bad


def pictures_in(output) -> int:
    "Pictures of an output: in its HTML, or itself"
    data = output.get('data', {})
    return ''.join(data.get('text/html', '')).count('<img') or int('image/png' in data)


def pictures_of(path) -> int:
    "Pictures that the page of a notebook must show"
    from atm_net.lessons import role

    shown = [
        c
        for c in notebook(path).cells
        if c.cell_type == 'code'
        and not re.search(r'^#\|\s*hide\b', c.source, re.M)
        and role(c).role not in ('rules', 'wrong', 'solution', 'check')
    ]
    return sum(pictures_in(o) for c in shown for o in c.outputs)


@pytest.mark.slow
def test_every_page(site, address, chromium):
    """No broken link, anchor, picture or formula; nothing from elsewhere; nothing wider than a
    phone, unless it scrolls in its box; each notebook with its pictures"""
    seen, asked = crawl(chromium, address)
    assert faults(seen, asked, address, site) == []
    assert {p.relative_to(site).as_posix() for p in site.rglob('*.html')} - set(seen) <= {
        'genindex.html',
        'search.html',
    }, 'pages that no link leads to'
    books = {
        p: f'{p.relative_to(ROOT).with_suffix("").as_posix()}.html' for p in [*NOTEBOOKS, *OPENED]
    }
    assert len(books) >= 34
    assert {h: seen[h]['pictures'] for h in books.values()} == {
        h: pictures_of(p) for p, h in books.items()
    } and sum(s['pictures'] for s in seen.values()) > 60
    assert seen['nbs/4_network/40_fusion.html']['formulas'] > 10 and all(
        f'api/{module_of(p)}.html' in seen for p in NOTEBOOKS
    )
    counted = {k: sum(page[k] for page in seen.values()) for k in ('pictures', 'formulas')}
    links = sum(len(page['links']) for page in seen.values())
    print(f'{len(seen)} pages, {links} links, {counted}, {len(asked)} requests')


def test_faults_notices(tmp_path):
    (tmp_path / 'a.html').write_text('', encoding='utf-8')
    a = 'http://x/'
    good = dict(
        links=[a + 'a.html#b'],
        ids=['b'],
        wide=390,
        sticks=[],
        broken=[],
        pictures=0,
        formulas=0,
        text='fine',
    )
    assert faults({'a.html': good}, [a + 'a.html'], a, tmp_path) == []
    for change, asked, word in (
        (dict(links=[a + 'c.html']), [], 'no c.html'),
        (dict(links=[a + 'a.html#z']), [], 'no a.html#z'),
        (dict(wide=391), [], '391 px'),
        (dict(sticks=['IMG.']), [], 'sticks out'),
        (dict(broken=['p.png']), [], 'p.png'),
        (dict(text='$$'), [], 'formula'),
        ({}, ['https://cdn.example/x.js'], 'elsewhere'),
    ):
        assert [word in f for f in faults({'a.html': good | change}, asked, a, tmp_path)] == [True]


@pytest.mark.slow
@pytest.mark.parametrize('how', ['served', 'from a folder'])
def test_search_finds(how, site, address, chromium):
    """A word of the lessons and the name of a function, with the pages on a server and opened as
    files"""
    view = chromium.new_page()
    at = address if how == 'served' else site.as_uri() + '/'
    for word, page in dict(superior='30_prompts', SelfEnhance='fusion').items():
        view.goto(f'{at}search.html?q={word}')
        view.get_by_text('Search finished').wait_for(timeout=20_000)
        hits = [a.get_attribute('href') for a in view.locator('#search-results li a').all()]
        assert any(page in h for h in hits), (word, hits)
    view.close()


@pytest.mark.slow
def test_lessons_tell_no_answers(site):
    "The pages of the lessons hold neither solutions nor answers"
    from atm_net.lessons import read_lesson, role

    for p in LESSONS:
        page = re.sub(
            '<[^>]+>',
            '',
            (site / 'nbs' / 'workshop' / f'{p.stem}.html').read_text(encoding='utf-8'),
        )
        given_away = [
            text
            for c in read_lesson(p).cells
            if role(c).role in ('answer', 'notes')
            for text in re.findall(r'[A-Za-z ,]{40,}', role(c).source)
            if text in page
        ]
        assert given_away == [] and 'Summary' in page
