"""One code for each language: ISO 639-1, or 639-3 where there is none, whatever code the data use."""

from stilts_jax.tasks.spec import names, pairs

ISO_639_3 = pairs("""
    aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis
    bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym da:dan de:deu
    dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin fj:fij fo:fao fr:fra fy:fry
    ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her ia:ina
    id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl it:ita iu:iku ja:jpn jv:jav ka:kat kg:kon ki:kik kj:kua kk:kaz
    kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao
    lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde
    ne:nep ng:ndo nl:nld nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol
    ps:pus pt:por qu:que rm:roh rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag si:sin sk:slk sl:slv
    sm:smo sn:sna so:som sq:sqi sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk
    tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln
    wo:wol xh:xho yi:yid yo:yor za:zha zh:zho zu:zul
""")
# The usual individual language of a macrolanguage, for which data are named.
_INDIVIDUAL = pairs("""
    als:sq arb:ar ayr:ay azj:az cmn:zh ekk:et fil:tl fuv:ff gaz:om khk:mn kmr:ku knc:kr lvs:lv npi:ne ory:or pbt:ps
    pes:fa plt:mg quy:qu swh:sw uzn:uz ydd:yi zsm:ms
""")
_SHORT = {long: short for short, long in ISO_639_3.items()} | _INDIVIDUAL
# Of languages that data have in two scripts, the second keeps its script.
_SECOND = names("""
    ace_Arab ar_Latn bn_Latn bjn_Arab hi_Latn kr_Arab ks_Deva min_Arab ne_Latn si_Latn taq_Tfng ur_Latn zh_Hant
""")


def our_code(code: str) -> str:
    """Returns our code of a language, of its ISO 639-1, ISO 639-3 or FLORES code: "sw" of "swa" and "swh_Latn"."""
    language, _, script = code.partition("_")
    ours = _SHORT.get(language, language)
    return f"{ours}_{script}" if f"{ours}_{script}" in _SECOND else ours


def codes_of(text: str) -> dict[str, str]:
    """Returns the codes that data use by ours, of a text that lists them; a script stands before its languages."""
    codes, script = [], ""
    for word in names(text):
        if word[0].isupper():
            script = f"_{word}"
        else:
            codes.append(f"{word}{script}")
    return {our_code(code): code for code in sorted(codes)}


FLORES = codes_of("""
    Latn ace afr aka als arb ast ayr azj bam ban bem bjn bos bug cat ceb ces cjk crh cym dan deu dik dyu eng epo est
    eus ewe fao fij fin fon fra fur fuv gaz gla gle glg grn hat hau hrv hun ibo ilo ind isl ita jav kab kac kam kbp
    kea kik kin kmb kmr knc kon lij lim lin lit lmo ltg ltz lua lug luo lus lvs min mlt mos mri nld nno nob nso nus
    nya oci pag pap plt pol por quy ron run sag scn slk slv smo sna som sot spa srd ssw sun swe swh szl taq tgl tpi
    tsn tso tuk tum tur twi umb uzn vec vie war wol xho yor zsm zul Arab ace acm acq aeb ajp apc arb ars ary arz azb
    bjn ckb kas knc min pbt pes prs snd uig urd Cyrl bak bel bul kaz khk kir mkd rus srp tat tgk ukr Deva awa bho
    hin hne kas mag mai mar npi san Beng asm ben mni Ethi amh tir Hant yue zho Hebr heb ydd Mymr mya shn Tfng taq
    tzm Tibt bod dzo Armn hye Geor kat Grek ell Gujr guj Guru pan Hang kor Hans zho Jpan jpn Khmr khm Knda kan Laoo
    lao Mlym mal Nkoo nqo Olck sat Orya ory Sinh sin Taml tam Telu tel Thai tha
""")
