"Sphinx: pages that load nothing from elsewhere, read from a server or from a folder"

import sys
from html import escape
from pathlib import Path

from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
from make_readme import settings

from atm_net.lesson_slides import readable_tex

HERE = Path(__file__).parent
s = settings()

project, author, copyright, release = s['title'], s['author'], s['copyright'], s['version']
extensions = ['myst_nb']
exclude_patterns = []
language = s['language'][:2].lower()
nb_execution_mode = 'off'  # pages show the outputs that the notebooks hold
nb_ipywidgets_js = {}  # live widgets need a kernel, and their scripts a network
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['dollarmath', 'html_image']
myst_heading_anchors = 4
myst_url_schemes = ('http', 'https', 'mailto')
myst_dmath_allow_space, myst_dmath_double_inline = False, True
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type']
html_theme, html_title, html_baseurl = 'furo', 'atm_net', s['doc_host'] + s['doc_baseurl'] + '/'
html_static_path, html_css_files = [str(HERE / 'static')], ['site.css']
html_show_sourcelink = html_copy_source = False
html_math_renderer = 'mathml'
pygments_style, pygments_dark_style = 'friendly', 'monokai'


def mathml(self, node, tag, display):
    "A formula as MathML, which browsers draw by themselves"
    from docutils import nodes

    tex = node.astext()
    formula = convert(readable_tex(tex), display=display)
    self.body.append(f'<{tag} class="math" title="{escape(tex)}">{formula}</{tag}>')
    raise nodes.SkipNode


def inline_formula(self, node):
    mathml(self, node, 'span', 'inline')


def displayed_formula(self, node):
    mathml(self, node, 'div', 'block')


def setup(app):
    app.add_html_math_renderer('mathml', (inline_formula, None), (displayed_formula, None))
