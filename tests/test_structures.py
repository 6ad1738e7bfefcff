"Structures, label schemes and anatomies: what is refused, and in which words"

import numpy as np
import pytest
import yaml

from atm_net.anatomy import IGNORE, LUMBAR, Scheme, Structure, convert, get_anatomy
from atm_net.core import InputError, some

JOINT = LUMBAR.scheme('joint')
SPIDER = LUMBAR.scheme('spider')
TOY = Scheme('toy', dict(a=3, b=201))


def bones(**changed) -> list:
    "The structures of a small anatomy, the first one changed"
    return [dict(name='femur', kind='bone') | changed, dict(name='tibia', kind='bone')]


def complaint(path, **fields) -> str:
    "What is said of an anatomy file with some fields changed"
    knee = dict(name='knee', image='MRI', structures=bones(), top_down=['femur', 'tibia'])
    path.write_text(yaml.safe_dump(knee | fields), encoding='utf-8')
    with pytest.raises(InputError) as refused:
        get_anatomy(path)
    said = str(refused.value)
    assert said.startswith(f'{path}: ') and '\n' not in said
    return said


def test_lists_stay_short():
    assert [some(range(n)) for n in (0, 1, 4)] == ['', '0', '0, 1, 2, 3']
    assert some(['L4', 5, 'S'], 2) == 'L4, 5 and 1 more'


def test_phrases():
    assert Structure('L1', 6, 'vertebra', 'lumbar').phrase == 'lumbar vertebra L1'
    assert Structure('S', 1, 'sacrum').phrase == 'sacrum S'


def test_the_table_of_the_lumbar_spine():
    assert LUMBAR.top_down[:5] == ('T9', 'T9/T10', 'T10', 'T10/T11', 'T11')
    assert LUMBAR.top_down[-4:] == ('L5', 'L5/S', 'S', 'SC')
    assert len({s.color for s in LUMBAR.structures}) == 20
    assert [LUMBAR.scheme(s).channels for s in ('joint', 'mrspineseg', 'spider')] == [21, 20, 20]


@pytest.mark.parametrize(
    'scheme, values',
    [
        ('mrspineseg', {'S': 1, 'L5': 2, 'T9': 10, 'L5/S': 11, 'L4/L5': 12, 'T9/T10': 19}),
        ('spider', {'L5': 1, 'L1': 5, 'T9': 9, 'L5/S': 201, 'T9/T10': 209, 'SC': 100}),
    ],
)
def test_values_in_files(scheme, values):
    assert {name: LUMBAR.scheme(scheme).values[name] for name in values} == values


def test_order_and_neighbours():
    assert LUMBAR.order(['SC', 'L5', 'T12']) == ('T12', 'L5', 'SC')
    assert (LUMBAR.below('L5', 'vertebra'), LUMBAR.above('T9')) == (None, None)
    with pytest.raises(InputError, match='upper one first'):
        LUMBAR.run('L4', 'L3')
    with pytest.raises(InputError, match='use one of joint'):
        LUMBAR.scheme('spine')


def test_a_scheme_knows_its_anatomy():
    assert all(scheme.anatomy is LUMBAR for scheme in LUMBAR.schemes.values())
    assert get_anatomy('thoracic').scheme('joint').anatomy.name != LUMBAR.name
    with pytest.raises(InputError, match="'toy' belongs to no anatomy"):
        _ = TOY.anatomy


@pytest.mark.parametrize('odd', [3, 254, -1, 256, 300, 1.5, np.nan, 2**40])
def test_a_channel_that_does_not_exist_is_refused(odd):
    with pytest.raises(InputError, match='do not exist'):
        TOY.decode(np.array([0, odd, 2]))


def test_the_complaint_names_channels_and_scheme():
    words = r"channel\(s\) -1, 9 do not exist in scheme 'toy' \(3 channels\)"
    with pytest.raises(InputError, match=words):
        TOY.decode(np.array([9, -1, 1]))
    with pytest.raises(InputError, match='10, 11 and 82 more unknown'):  # an image by mistake
        TOY.encode(np.arange(4, 94))
    with pytest.raises(InputError, match="no structure 'c'"):
        TOY.channel('c')


def test_types_of_arrays():
    arrays = ([True, False], [1.0, 255.0], [])
    assert [TOY.decode(np.array(a)).tolist() for a in arrays] == [[3, 0], [3, 0], []]
    assert TOY.decode(np.array([1, 0])).dtype == np.uint8
    assert Scheme('big', dict(a=65535)).decode(np.array([1])).tolist() == [65535]
    assert TOY.encode(np.array([103]), alias={103: 'a'}).tolist() == [1]


def test_as_many_structures_as_channels():
    wide = Scheme('wide', {str(i): i for i in range(1, 255)})
    assert wide.decode(np.arange(256, dtype=np.uint8)).tolist() == [*range(255), 0]


@pytest.mark.parametrize(
    'values, words',
    [
        (dict(a=0), 'from 1 to 65535'),
        (dict(a=65536), 'from 1 to 65535'),
        (dict(a='1'), "'a' has the value '1'"),
        (dict(a=True), 'True'),
        (dict(a=7, b=7), 'value 7 stands for two'),
        ({str(i): i for i in range(1, 256)}, '255 structures'),
    ],
)
def test_a_scheme_refuses(values, words):
    with pytest.raises(InputError, match=words):
        Scheme('toy', values)


@pytest.mark.parametrize('odd', [21, 99, 254, -1, 300])
def test_conversion_refuses(odd):
    with pytest.raises(InputError, match=rf'channel\(s\) {odd} do not exist'):
        convert(np.array([0, odd, IGNORE]), JOINT, SPIDER)


def test_conversion_refuses_an_array_of_another_scheme():
    with pytest.raises(InputError, match='20, 99 do not exist'):  # 20 is the canal of `joint`
        convert(np.uint8([0, 20, 99]), SPIDER, JOINT)


@pytest.mark.parametrize(
    'fields, words',
    [
        (dict(top_down=None), 'top_down: must be a list'),
        (dict(top_down=['femur']), "top_down: must list every structure once, see 'tibia'"),
        (dict(top_down=['femur', 'tibia', 'femur']), "see 'femur'"),
        (dict(top_down=['femur', 'tibia', ['x']]), 'see'),
        (dict(schemes=['a']), 'schemes: must hold'),
        (dict(schemes=dict(a=None)), 'schemes: must hold'),
        (dict(schemes=dict(a=dict(fibula=1))), "unknown structure 'fibula', did you mean 'tibia'"),
        (dict(schemes=dict(a={5: 1})), "unknown structure '5'"),
        (dict(schemes=dict(a=dict(femur=3, tibia=3))), "label scheme 'a': value 3"),
        (dict(schemes=dict(a=dict(femur=0))), 'from 1 to 65535'),
        (dict(schemes=dict(a=dict(femur=70000))), 'from 1 to 65535'),
        (dict(structures=None), 'structures: must be a list'),
        (dict(structures=['femur']), 'structures: each needs'),
        (dict(structures=bones(name='tibia')), "structures: name 'tibia' occurs twice"),
        (dict(structures=bones(id=2)), "structures: id '2' occurs twice"),
        (dict(structures=bones(id='one')), "id 'one' must be"),
        (dict(structures=bones(color=None)), "structures: 'femur': color None"),
        (dict(structures=bones(name=5)), "structures: '5': name"),
        (dict(name=7), 'name: must be text'),
        (dict(structures=[dict(name=str(i), kind='bone') for i in range(255)]), '255 structures'),
    ],
)
def test_an_anatomy_file_is_refused(tmp_path, fields, words):
    assert words in complaint(tmp_path / 'knee.yaml', **fields)


@pytest.mark.parametrize('raw', [b'\x89PNG\xff\x00\x01', b'name: [', b'- a\n', b'', b'name: x\n'])
def test_a_file_that_holds_no_anatomy(tmp_path, raw):
    path = tmp_path / 'knee.yaml'
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r'knee\.yaml: '):
        get_anatomy(path)


def test_where_an_anatomy_comes_from(tmp_path):
    assert get_anatomy() is LUMBAR and get_anatomy('') is LUMBAR
    chest = get_anatomy('thoracic')
    assert (chest.top_down[:2], chest.top_down[-1]) == (('T7', 'T7/T8'), 'SC')
    assert [chest[n].phrase for n in ('T8', 'cord')] == ['thoracic vertebra T8', 'spinal cord']
    with pytest.raises(InputError, match='no/such.yaml'):
        get_anatomy('no/such.yaml')


def test_structures_of_a_kind():
    assert LUMBAR.bodies == ('T9', 'T10', 'T11', 'T12', 'L1', 'L2', 'L3', 'L4', 'L5', 'S')
    assert LUMBAR.of_kind('canal', 'sacrum') == ('S', 'SC')  # top-down, not as asked
    assert LUMBAR.of_kind('ligament') == ()
