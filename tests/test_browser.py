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
        OMP_NUM_THREADS='2',
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


@pytest.fixture(params=['lab', 'notebook'])
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
            view = browser.new_page(viewport=dict(width=1500, height=1500))
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
                SHOTS.mkdir(parents=True, exist_ok=True)
                view.screenshot(path=SHOTS / f'{request.param}.png')
                browser.close()
    finally:
        server.terminate()
        server.wait(20)


def run_all(page):
    "Run > Run All Cells once the kernel is connected, and wait for the explorer"
    page.locator('.jp-Notebook .jp-Cell').first.wait_for()
    until(page, lambda: kernel(page) == 'idle', 'a kernel', 90)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for(
        state='attached'
    )
    for _ in range(5):  # a person presses again where nothing happens
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.locator('[data-command="runmenu:run-all"]').click()
        page.wait_for_timeout(2000)
        answer_dialogs(page)
        if page.locator('.jp-InputPrompt').filter(has_text=re.compile(r'\[[\d*]+\]')).count():
            break
    ex = page.locator(f'{FIELD}:has(textarea)').first
    until(page, lambda: ex.locator('img').count(), 'the explorer', 150)
    until(
        page,
        lambda: not page.locator('.jp-InputPrompt:has-text("[*]")').count(),
        'the end of the last cell',
        150,
    )
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


def pictures(ex):
    return [i.get_attribute('src') for i in ex.locator('img').all()]


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
        page.wait_for_timeout(50)
    raise AssertionError(f'{what} did not happen within {seconds} s')


def press_run(page, ex):
    """Tab from the sentence to the button and press it with the keyboard; returns the seconds
    until the pictures changed"""
    was, go = pictures(ex)[0], ex.locator('button:has-text("Run")').first
    t = time.monotonic()
    go.focus()
    page.keyboard.press('Space')
    return until(page, lambda: pictures(ex)[0] != was, 'another picture') - t


def write(page, box, text):
    "Replace the sentence, and leave the box"
    box.click()
    page.keyboard.press('Control+A')
    page.keyboard.type(text)
    page.keyboard.press('Tab')


def another_slice(page, ex):
    "Move the slider by the keyboard"
    first = pictures(ex)[0]
    if page.app == 'lab':
        value(ex, 'slice').locator('.noUi-handle').first.click()
        page.keyboard.press('ArrowRight')
    else:
        value(ex, 'slice').locator('.widget-readout').first.click()
        page.keyboard.press('Control+A')
        page.keyboard.type('5')
        page.keyboard.press('Enter')  # Notebook 7 keeps the arrows for its cells: type the number
    until(page, lambda: pictures(ex)[0] != first, 'another slice')


def test_a_person_with_a_keyboard(page):
    ex = run_all(page)
    until(page, lambda: len(mean(ex)) >= 2, 'a table of Dice')
    another_slice(page, ex)

    value(ex, 'words from').locator('select').select_option('oracle')
    box = ex.locator('textarea:visible').first
    said = 'From superior to inferior'
    until(page, lambda: said in box.input_value(), 'the sentence of the oracle')
    press_run(page, ex)
    right, before = box.input_value(), mean(ex)
    level = re.search(r'lumbar vertebra (L\d)', right)[1]
    wrong = 'L1' if level != 'L1' else 'L2'
    ticks = ex.locator('.widget-checkbox input:checked, input[type=checkbox]:checked')
    assert ticks.count() > 5  # the ticks follow

    write(page, box, right.replace(f'vertebra {level}', f'vertebra {wrong}'))
    until(page, lambda: ex.get_by_text('press Run').count(), 'the hint to run')
    took = press_run(page, ex)
    until(page, lambda: mean(ex) != before, 'another Dice')
    assert ex.locator('ins').count() and ex.locator('del').count()  # which words changed
    print(f'{page.app}: Dice {before} -> {mean(ex)}, answered in {took:.2f} s')

    shown = pictures(ex)
    value(ex, 'stage').locator('select').select_option('1/32')
    until(page, lambda: pictures(ex) != shown, 'another word map')
    write(page, box, 'It shows lumbar vertebra L9.')
    until(page, lambda: ex.get_by_text('did you mean').count(), 'a suggestion')
    kept = pictures(ex)[0]
    page.wait_for_timeout(300)
    assert pictures(ex)[0] == kept  # the last result stays
    ex.scroll_into_view_if_needed()
