"""The explorer in a real browser: JupyterLab below a base URL, and Notebook 7, headless Chromium;
ATM_NET_BROWSER=required makes a missing browser a failure"""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import BIN, ROOT

CHROMIUM = os.environ.get('ATM_NET_CHROMIUM') or next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]
SHOTS = Path(
    os.environ.get('ATM_NET_SHOTS', ROOT / 'runs' / 'browser')
)  # screenshots are kept: look at them
BASE = dict(lab='/x/y', notebook='')  # a shared server, as JupyterHub's, serves below an address
FIELD = '.jp-OutputArea-output'  # where the widgets of a cell are
CHIPS = '.jupyter-widget-tagsinput'  # a row of chips


def need_browser():
    if CHROMIUM:
        return
    if os.environ.get('ATM_NET_BROWSER') == 'required':
        pytest.fail(
            'no Chromium: install the package chromium, or set ATM_NET_CHROMIUM to its path'
        )
    pytest.skip('no Chromium: install the package chromium, or set ATM_NET_CHROMIUM to its path')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def serve(app, folder):
    "A Jupyter server on a free port -> (process, address)"
    port = free_port()
    env = dict(
        os.environ,
        OMP_NUM_THREADS='1',
        JUPYTER_CONFIG_DIR=str(folder / 'config'),
        JUPYTER_DATA_DIR=str(folder / 'data'),
        JUPYTER_RUNTIME_DIR=str(folder / 'runtime'),
        PATH=f'{BIN}:{os.environ["PATH"]}',
    )
    options = [
        '--no-browser',
        '--allow-root',
        f'--port={port}',
        '--IdentityProvider.token=',
        '--ServerApp.password=',
        f'--ServerApp.root_dir={folder}',
        f'--ServerApp.base_url={BASE[app]}/',
        '--LabApp.news_url=None',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ]
    command = [str(BIN / 'jupyter'), app, *options]
    log = folder / 'server.log'
    with log.open('w', encoding='utf-8') as out:  # the server keeps it open
        p = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    for _ in range(240):
        if p.poll() is not None:
            break
        try:
            urlopen(f'http://127.0.0.1:{port}{BASE[app]}/api', timeout=2)
            return p, f'http://127.0.0.1:{port}{BASE[app]}'
        except OSError:
            time.sleep(0.5)
    p.kill()
    pytest.fail(f'jupyter {app} did not start:\n{log.read_text(encoding="utf-8")[-2000:]}')


def shot(name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS / name


@pytest.fixture(params=['lab', pytest.param('notebook', marks=pytest.mark.slow)])
def page(request, tmp_path):
    "The explorer walkthrough, opened in JupyterLab or Notebook 7"
    need_browser()
    from playwright.sync_api import sync_playwright

    for n in ('config', 'data', 'runtime'):
        (tmp_path / n).mkdir()
    shutil.copy(ROOT / 'nbs' / 'walkthroughs' / '01_explorer.ipynb', tmp_path)
    server, address = serve(request.param, tmp_path)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            view = browser.new_page(viewport=dict(width=900, height=1500))
            view.set_default_timeout(60_000)
            view.goto(
                f'{address}/lab/tree/01_explorer.ipynb'
                if request.param == 'lab'
                else f'{address}/notebooks/01_explorer.ipynb'
            )
            view.app, view.address = request.param, address
            view.add_locator_handler(view.locator('.jp-Dialog'), lambda: answer_dialogs(view))
            try:
                yield view
            finally:
                view.screenshot(path=shot(f'{request.param}.png'))
                browser.close()
    finally:
        server.terminate()
        server.wait(20)


def make_live(page):
    "As the first line says: click the stored pictures and press Shift+Enter, or that alone"
    stored = page.locator(f'{FIELD}:has-text("press Shift+Enter") img')
    stored.first.wait_for()
    assert 'is called' in stored.last.get_attribute('alt')  # seen before anything has run
    assert not page.locator(f'{FIELD} textarea').count()
    until(page, lambda: kernel(page) == 'idle', 'a kernel', 90)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for(
        state='attached'
    )
    if page.app == 'lab':
        stored.first.click()
        page.keyboard.press('Shift+Enter')
    else:  # without a mouse
        for _ in range(4):
            page.keyboard.press('Shift+Enter')
            page.wait_for_timeout(500)
    ex = page.locator(f'{FIELD}:has(textarea)').first
    until(page, lambda: ex.locator(CHIPS).count(), 'the explorer', 300)
    until(page, lambda: ex.get_by_text('one level too low').count(), 'the first comparison', 150)
    ex.scroll_into_view_if_needed()
    return ex


def kernel(page):
    "What the server says of the notebook's kernel; None before there is one"
    sessions = page.request.get(f'{page.address}/api/sessions').json()
    return sessions[0]['kernel']['execution_state'] if sessions else None


def answer_dialogs(page):
    "Say yes where Jupyter asks: on a slow machine it asks which kernel to use, once a cell"
    ask = page.locator('.jp-Dialog')
    if ask.count():
        print('Jupyter asks:', ask.first.inner_text().replace('\n', ' | '))
        ask.first.locator('.jp-mod-accept').dispatch_event('click')


def mask_now(ex):
    return ex.locator('img[alt*="mask now"]').get_attribute('src')


def value(ex, label):
    return ex.locator(f'.widget-inline-hbox:has(label:text-is("{label}"))')


def mean(ex):
    return ex.locator(
        'table tr:has-text("mean") td, table tr:has-text("mean") th'
    ).all_inner_texts()


def until(page, ok, what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer_dialogs(page)
        if ok():
            return time.monotonic()
        page.wait_for_timeout(150)
    raise AssertionError(f'{what} did not happen within {seconds} s')


def press(page, ex, button):
    "Press a button with the keyboard"
    ex.locator(f'button:has-text("{button}")').first.focus()
    page.keyboard.press('Space')


def press_run(page, ex):
    "Run with the keyboard; returns the seconds until the mask changed"
    was = mask_now(ex)
    t = time.monotonic()
    press(page, ex, 'Run')
    return until(page, lambda: mask_now(ex) != was, 'another mask') - t


def write(page, box, text):
    "Replace the sentence, and leave the box"
    box.click()
    page.keyboard.press('Control+A')
    page.keyboard.type(text)
    page.keyboard.press('Tab')


def chip(ex, row, name):  # row: 0 in the sentence, 1 left out
    return ex.locator(CHIPS).nth(row).locator(f'div.jupyter-widget-tag:text-is("{name}")')


def cut_off(ex):
    "What reaches beyond the right edge of the explorer or of the page"
    return ex.evaluate("""e => {
        const edge = Math.min(e.getBoundingClientRect().right, window.innerWidth) + 1
        return [...e.querySelectorAll('*')]
            .filter(x => x.checkVisibility() && x.getBoundingClientRect().right > edge)
            .map(x => x.tagName + '.' + x.className)
    }""")


def by_tab(page, ex, stops=80):
    "Which controls Tab leads to, from the first one on: their names"
    ex.locator('select').first.focus()
    names = []
    for _ in range(stops):
        name = page.evaluate("""() => {
            const e = document.activeElement
            const own = (e.labels && e.labels.length) ? e.labels[0].innerText : e.innerText
            return (e.closest('.jp-OutputArea-output') ? own : '').trim()
        }""")
        if not name:
            break
        names.append(name.split('\n')[0])
        page.keyboard.press('Tab')
    return names


# --- what people do


def see_the_first_comparison(page, ex):
    "The picture says what it shows, nothing is cut off, Tab leads everywhere"
    assert ex.get_by_text('Now 3 of 5 vertebrae have their true name, before 5').count()
    alts = [i.get_attribute('alt') for i in ex.locator('img').all()]
    assert len(alts) == 4 and all(len(a) > 40 for a in alts)
    assert cut_off(ex) == []
    press(page, ex, 'tick boxes')
    until(page, lambda: ex.locator('label:has-text("T12/L1")').count(), 'tick boxes')
    reached = by_tab(page, ex)
    assert reached[:3] == ['case', 'slice', 'pictures']
    wanted = {'words from', 'form', 'sentence', 'Run', 'levels up', 'tick boxes', 'word', 'open'}
    assert wanted | {'L3', 'L3/L4', 'S', 'stage', 'About these weights'} <= {*reached}
    assert cut_off(ex) == []


def move_chips(page, ex):
    "Drag a chip off and on; a name that does not exist is refused"
    box = ex.locator('textarea:visible').first
    chip(ex, 0, 'L2').drag_to(chip(ex, 1, 'L5'))
    until(page, lambda: 'vertebra L2,' not in box.input_value(), 'a sentence without L2')
    assert not ex.get_by_label('L2', exact=True).is_checked()  # the tick box follows
    chip(ex, 1, 'L2').drag_to(chip(ex, 0, 'L1'))
    until(page, lambda: 'vertebra L2,' in box.input_value(), 'a sentence with L2')
    chip(ex, 1, 'L5').locator('i').click()  # the cross
    until(page, lambda: 'vertebra L5,' in box.input_value(), 'a sentence with L5')
    ex.locator(CHIPS).first.click(position=dict(x=3, y=3))
    page.keyboard.type('L9')
    page.keyboard.press('Tab')
    until(page, lambda: ex.get_by_text("unknown chip 'L9', did you mean").count(), 'a suggestion')
    assert not chip(ex, 0, 'L9').count()


def another_slice(page, ex):
    "By the keyboard"
    menu = value(ex, 'slice').locator('select')
    was, seen = menu.input_value(), mask_now(ex)
    menu.focus()
    for key in ('Space', 'ArrowDown', 'Enter'):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
    until(page, lambda: menu.input_value() != was, 'another slice')
    until(page, lambda: mask_now(ex) != seen, 'its mask')


def edit_the_text(page, ex):
    "A wrong level in the text; then one that does not exist"
    value(ex, 'words from').locator('select').select_option('oracle')
    box = ex.locator('textarea:visible').first
    until(page, lambda: 'From superior to inferior' in box.input_value(), 'the true list')
    press(page, ex, 'Run')
    until(page, lambda: ex.get_by_text(re.compile(r'^[\d.]+ s$')).count(), 'the time of the run')
    right, before = box.input_value(), mean(ex)
    level = re.search(r'lumbar vertebra (L\d)', right)[1]
    wrong = 'L1' if level != 'L1' else 'L2'
    write(page, box, right.replace(f'vertebra {level}', f'vertebra {wrong}'))
    until(page, lambda: ex.get_by_text('press Run').count(), 'the hint to run')
    took = press_run(page, ex)
    until(page, lambda: mean(ex) != before, 'another Dice')
    assert ex.locator('ins').count() and ex.locator('del').count()  # which words changed
    print(f'{page.app}: Dice {before} -> {mean(ex)}, answered in {took:.2f} s')
    write(page, box, 'It shows lumbar vertebra L9.')
    until(page, lambda: ex.get_by_text('did you mean').count(), 'a suggestion')
    kept = mask_now(ex)
    page.wait_for_timeout(300)
    assert mask_now(ex) == kept  # the last result stays


def in_a_hurry(page, ex):
    "Another case before the last one is there; a scan that does not exist"
    menu = value(ex, 'case').locator('select')
    menu.select_option(index=2)
    menu.select_option(index=4)
    until(page, lambda: 'of phantom 1 (t2)' in first_alt(ex), 'the last case', 60)
    page.wait_for_timeout(500)
    assert 'of phantom 1 (t2)' in first_alt(ex)
    ex.get_by_label('open', exact=True).fill('nowhere.mha')
    page.keyboard.press('Enter')
    until(page, lambda: ex.locator('[role=alert]:has-text("nowhere.mha")').count(), 'one line')


def first_alt(ex):
    return ex.locator('img').first.get_attribute('alt')


def test_a_person_with_a_keyboard(page):
    ex = make_live(page)
    page.screenshot(path=shot(f'{page.app}_live.png'))
    see_the_first_comparison(page, ex)
    press(page, ex, 'levels up')
    press_run(page, ex)
    until(page, lambda: ex.get_by_text('Now 5 of 5').count(), 'the true names')
    move_chips(page, ex)
    another_slice(page, ex)
    edit_the_text(page, ex)
    shown = ex.locator('img').last.get_attribute('src')
    value(ex, 'stage').locator('select').select_option('1/32')
    until(page, lambda: ex.locator('img').last.get_attribute('src') != shown, 'another word map')
    in_a_hurry(page, ex)
    ex.scroll_into_view_if_needed()


@pytest.mark.skipif(not shutil.which('make'), reason='no make')
def test_make_lab_starts_for_root_and_over_ssh():
    how = dict(text=True, encoding='utf-8', cwd=ROOT)
    ask = ['make', '-n', '-o', '.venv/.ready', 'lab', 'PORT=9123']
    env = {k: v for k, v in os.environ.items() if k != 'SSH_CONNECTION'}
    here = subprocess.check_output(ask, env=env, **how)
    there = subprocess.check_output(ask, env=env | dict(SSH_CONNECTION='a 1 b 22'), **how)
    assert ('--allow-root' in here) == (os.getuid() == 0)
    assert ('--no-browser' in here, '--no-browser' in there) == (False, True)
    assert 'ssh -L 9123:localhost:9123' in there and '--port=9123' in there
    assert '01_explorer.ipynb' in there and '--ip=localhost' in there
