"Package metadata lives in settings.ini, which nbdev reads too."

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

cfg = ConfigParser(delimiters=['='])
cfg.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
s = cfg['DEFAULT']


class BuildWithLessons(build_py):
    "The lessons of nbs/workshop go into the package, where atm_workshop finds them"

    def run(self):
        super().run()
        if self.editable_mode:
            return  # a clone has them in nbs/workshop
        lessons = Path(__file__).parent / s['nbs_path'] / 'workshop'
        copies = Path(self.build_lib) / s['lib_path'] / 'lesson_notebooks'
        copies.mkdir(parents=True, exist_ok=True)
        for lesson in lessons.glob('[0-9][0-9]_*.ipynb'):
            shutil.copy(lesson, copies)


setup(
    name=s['lib_name'],
    version=s['version'],
    description=s['description'],
    keywords=s['keywords'],
    author=s['author'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    url=s['git_url'],
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['atm_net', 'atm_net.*']),
    package_data={'atm_net': ['assets/**/*']},
    include_package_data=False,
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Intended Audience :: Education',
        'Intended Audience :: Science/Research',
    ],
    python_requires=f'>={s["min_python"]}',
    install_requires=s['requirements'].split(),
    extras_require=dict(
        nnunet=['nnunetv2>=2.6,<3'],
        tensorboard=['tensorboard>=2.17'],
        dev=s['dev_requirements'].split(),
        lab=s['lab_requirements'].split(),
        site=s['site_requirements'].split(),
        e2e=['playwright'],
    ),
    entry_points=dict(
        console_scripts=[c.strip() for c in s['console_scripts'].split('\n')],
        nbdev=[f'{s["lib_name"]}={s["lib_path"]}._modidx:d'],
    ),
    cmdclass=dict(build_py=BuildWithLessons),
    zip_safe=False,
)
