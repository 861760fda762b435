"""Names after cues, postal addresses, e-mail and accounts of social media.

Names are found where a cue announces them, and then wherever they stand again; a name without a
cue stays. Addresses are found by street and number, by house and room, or after a cue.
"""

import re
from collections.abc import Iterator

from limbeck.serving.privacy.numbers import Span

HAN = "\u4e00-\u9fff"
SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏"
    "钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜"
    "倪严牛温芦季俞章鲁葛伍韦申尤毕聂焦向柳邢岳齐梅莫庄辛管祝左涂谷祁舒耿牟卜路詹关苗凌费纪靳盛童欧甄项曲成游阳裴"
    "席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边辜吉饶刁瞿戚丘古米池滕晋苑邬臧畅宫来嵺苟全褚廉简"
    "娄盖符奚木穆党燕郎邸冀谈姬屠连郜晏栾郁商蒙计喻揭窦迟宇敖糜鄢冷卓花仇艾蓝巩衡玉稽井练仲乐虞卞封竺冼原官衣楚佟栗匡宗"
    "張劉陳楊趙黃吳孫馬羅鄭謝韓馮鄧許傅蘇盧蔣賈葉閻鍾譚鄒陸邱龍錢湯賴龐蕭呂"
)
COMPOUND = (
    "欧阳|太史|端木|上官|司马|东方|独孤|南宫|万俟|闻人|夏侯|诸葛|尉迟|公羊|赫连|澹台|皇甫"
    "|宗政|濮阳|公冶|太叔|申屠|公孙|慕容|"
    "仲孙|钟离|长孙|宇文|司徒|鲜于|司空|闾丘|令狐|百里|呼延|东郭|南门|西门|歐陽|司馬"
)
FAMILY = rf"(?:{COMPOUND}|[{SURNAMES}])"
AFTER_NAME = (
    rf"(?=$|[^{HAN}\w]|男|女|今年|现在|现年|年龄|身份证|手机|电话|的|是|于|因|在|住|来|说|和"
    rf"|跟|，|有|得|从|已|患|最近|想|他|她"
    rf"|\d|岁|先生|女士|医生|大夫|主任|教授|护士)"
)
SURE_CUE = (
    r"(?:我叫做?|我的名字[是叫]?|名字[是叫为:]{1,2}|姓名[是为叫]?|名叫|叫做|全名[是叫]?"
    r"|真名[是叫]?|联系人|紧急联系人|受检者|受检人|"
    r"就诊人|监护人|签名|签字|申请人|投保人|被保险人|持卡人|收件人|户主|主治医[师生]|责任护士"
    r"|经治医[师生]|主刀医?[师生]?)"
)
LOOSE_CUE = (
    r"(?:患者|病人|病患|我是|本人|家属|儿子|女儿|老公|老婆|丈夫|妻子|爱人|父亲|母亲|爸爸|妈妈"
    r"|爷爷|奶奶|外公|外婆|孩子|宝宝|弟弟|"
    r"哥哥|姐姐|妹妹|同事|朋友|室友|邻居|同学|他叫|她叫|叫)"
)
SURE_NAME = re.compile(
    rf"{SURE_CUE}[ :是为叫]{{0,3}}((?:{FAMILY}[ ]?[{HAN}·]{{1,2}}?|[{HAN}]{{2,4}}?){AFTER_NAME})"
)
LOOSE_NAME = re.compile(
    rf"{LOOSE_CUE}[ :]{{0,2}}(某?{FAMILY}(?:某某?|[{HAN}]{{1,2}}?)){AFTER_NAME}"
)
SURNAME_ONLY = re.compile(rf"(?:我|本人|免贵|患者|病人|他|她|医生)姓({FAMILY})(?![{HAN}]{{0,1}}名)")
TITLED = re.compile(
    rf"(?<![主专教兽对由关至终等基鉴])({FAMILY}(?:[{HAN}]{{0,2}}?))"
    r"(?=先生|女士|小姐|太太|阿姨|大爷|大妈|大叔|叔叔|奶奶|爷爷|医生|医师|大夫|主任|教授|护士|老师)"
)
NOT_NAMES = re.compile(
    "高[血烧热度龄危压脂尿原糖中蛋钙强考低]|黄[疸色斑痰水体褐芪豆]"
    "|白[内血带癜天色细蛋斑痰睛头发化班]|常[见规常用感年]|时[间常候不而]"
    "|方[便法案向面才式]|安[全静排慰眠]|康[复]|温[度水热]|任[何性务意]|全[身部天家面都程]"
    "|成[年人绩]|单[侧纯位次独]|左[侧手脚腿边眼肾肺右心耳]"
    "|包[括皮]|计[划算]|强[烈迫直]|车[祸]|房[颤间]|边[上缘]|解[决释大便热放]"
    "|来[的这自医院了看]|关[节于系心]|管[理不]|盛[夏]|原[来因发]|连[续着]|商[量]"
    "|项[目]|路[上过]|游[泳走离]|石[膏]|毛[病发巾囊]|文[化件]|冷[汗热敷]|花[粉]|都[是有说没]"
    "|严[重]|金[属黄]|苏[醒]|夏[天季]|向[来右左]|梅[毒]|季[节]|辛[苦]"
    "|简[单]|查[出体了]|练[习]|位[置]|于[是今]|万[一分]|易[怒醒]|段[时]|申[请]|焦[虑急]"
    "|卫[生]|胡[言话说萝乱]|马[上桶]|牛[奶皮肉]|何[时为处]|龙[头]"
    "|宫[颈外内缩]|符[合]|舒[张服适]|费[用]|范[围]|童[年]|许[多可]|程[度]|霍[乱]|应[该当]"
    "|罗[音]|谢[谢]|周[围期身末一二三四五六日岁]|汤[药]|叶[酸]"
    "|阳[性台光痿]|曾[经有患在因]|顾[虑]|尤[其]|凌[晨]|余[热下]|江[湖]|钱[不多]|章[鱼]"
    "|水[肿痘]|武[汉]|林[巴]|曲[张]|郁[闷]|卓[越]|喻[为]|管[床]|祝[您你]|姜[片汤]"
)
"""Words of illness and everyday words that begin like a surname."""
EN_WORD = r"[A-Z][a-zA-Z'\u2019\-]+"
EN_FULL = rf"{EN_WORD}(?: [A-Z]\b\.?)?(?: {EN_WORD}){{0,2}}"
EN_SURE = re.compile(
    r"(?i:\b(?:my (?:full )?name is|my name's|name ?:|patient(?:'s)? name(?: is|:)?|named|known as|"
    r"signed(?: by)?:?|contact(?: person)?:|guardian:|physician:|call me)) ?"
    rf"((?-i:{EN_FULL})|(?!is\b|a\b|the\b|not\b)[a-z][a-z'\-]+ [a-z][a-z'\-]+(?=[,.;!?]|$"
    rf"| and | i ))"
)
EN_TITLE = re.compile(rf"\b(?i:mr|mrs|ms|miss|mx|dr|prof|professor|nurse)\.? ({EN_FULL})")
EN_LOOSE = re.compile(
    rf"\b(?:[Pp]atient|I am|I'm|I’m|[Tt]his is|(?:[Mm]y|[Hh]is|[Hh]er) (?:son|daughter|wife"
    rf"|husband|"
    rf"mother|father|mom|dad|brother|sister|friend|boyfriend"
    rf"|girlfriend)),? ({EN_WORD} {EN_WORD})(?!\w)"
)
EN_NOT = re.compile(r"(?:Type|Chinese|American|English|Covid|COVID|Not|The|Stage|Grade|In|On|At)\b")
EMAIL = re.compile(
    r"[A-Za-z0-9._%+\-]{1,64} ?(?:@|\(at\)"
    r"|\[at\]) ?[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,4}"
)
SOCIAL = re.compile(
    r"(?:微信号?|薇信号?|威信号?|v信|\bvx|\bwx|加[我微vV]{1,2}|wechat|weixin|\bqq号?码?"
    r"|扣扣号?|企鹅号|微博号?|抖音号?|小红书号?|快手号?|"
    r"支付宝账?号?|钉钉号?|telegram|whatsapp|instagram|\big\b|twitter|skype|facebook|snapchat"
    r"|line id|"
    r"discord)(?:账号|帐号|号码|号)?(?: (?:id|handle|account|name|number))?[ :是为]{0,3}(?:is )?"
    r"(@?[A-Za-z0-9_][A-Za-z0-9_\-.]{3,29})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
BIRTH = re.compile(
    r"(?:出生日期|出生年月日?|生日|出生于|date of birth|\bdob\b|born on)[ :是为]{0,3}(?:is )?"
    r"(\d{2,4}[\-/.年]\d{1,2}(?:[\-/.月]\d{1,4})?日?|\d{1,2} [A-Z][a-z]+ \d{4}"
    r"|[A-Z][a-z]+ \d{1,2},? \d{4})",
    re.IGNORECASE,
)
HOUSE = (
    r"[\dA-Za-z一二三四五六七八九十百零〇甲乙丙丁]{1,6} ?"
    r"(?:号院|号楼|号|弄|栋|幢|座|单元|室|楼|层|组|队|户|门)"
)
STREET = re.compile(
    rf"([{HAN}A-Za-z\d]{{1,12}}?)(?:(?<![走上赶跑迷])路|街道|街|大道|巷|胡同|镇|乡|村|庄|屯"
    rf"|小区|花园|家园|公寓|新村|苑|大厦|广场|社区|(?<![尿肠气管化吸食味渠知阴产胆])道)"
    rf"[东南西北中]?[一二三四五六七八九十]?[路段街]? ?{HOUSE}"
)
MORE_HOUSE = re.compile(
    rf"[ ,，\-]{{0,2}}(?:{HOUSE}|[{HAN}]{{2,8}}(?:小区|花园|家园|公寓|苑|大厦|广场|园|城) ?"
    rf"|(?:\d{{3,4}}室?|(?:邮编:? ?)?\d{{6}})(?!\d))"
)
MAX_STREET_CHARS = 12
MAX_LEVELS = 4
"""Province, city, district, town."""
ADMIN = "省市区县旗州盟镇乡村路街"
LEVELS = re.compile(
    rf"[{HAN}]{{2,7}}?(?:省|自治区|市)[{HAN}]{{1,7}}?(?:市|州|盟|区|县"
    rf"|旗)[{HAN}]{{1,8}}?(?:区|县|街道|镇|乡|路|街|村)"
)
CUED_ADDRESS = re.compile(
    rf"(?:家庭住址|通讯地址|联系地址|现住址|户籍地址|户籍|籍贯|住址|地址|家住|现住|居住地"
    rf"|收货地址)[ :是为在]{{0,3}}"
    rf"([{HAN}A-Za-z\d][{HAN}A-Za-z\d\-#() ]{{3,60}})"
)
BEFORE_ADDRESS = re.compile(r"^.{0,16}(?:住在|家在|位于|家住|[住在是为址去到从])(?=.{2})")
EN_STREET = (
    r"street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|way|place|pl"
    r"|square|sq|terrace|"
    r"highway|hwy|parkway|pkwy|circle|cir|trail|crescent|close|alley|row|mews"
)
EN_ADDRESS = re.compile(
    rf"(?<![\w.])\d{{1,6}}[A-Za-z]?,? (?:[A-Za-z][A-Za-z'.]{{1,20}} ){{1,4}}?(?:{EN_STREET})\b\.?"
    r"(?:,? (?:apt|apartment|suite|ste|unit|flat|floor|room|#)\.? ?#?\w{1,6})?"
    r"(?:,? (?-i:[A-Z][a-z]+)(?: (?-i:[A-Z][a-z]+)){0,2})?"
    r"(?:,? (?-i:[A-Z]{2}))?(?:,? \d{5}(?:-\d{4})?)?"
    r"|\bP\.?O\.? box \d{1,6}",
    re.IGNORECASE,
)
EN_CUED_ADDRESS = re.compile(
    r"\b(?:(?:home |mailing |postal )?address(?: is|:)|i live at|we live at|residing at|lives at) "
    r"([A-Za-z0-9][^;\n\u4e00-\u9fff]{5,90}?(?:\b[A-Z]{2} \d{5}(?:-\d{4})?|(?=[;\n.]? ?$"
    r"|\. [A-Z]|;|\n)))",
    re.IGNORECASE,
)


def find_names(text: str) -> Iterator[Span]:
    """Names after a cue or before a title, and each other place where such a name stands."""
    spans = list(_cued_names(text))
    names = {text[start:end] for start, end in spans if end - start > 1}
    yield from spans
    for name in names:
        bounded = re.escape(name) if re.match(f"[{HAN}]", name) else rf"\b{re.escape(name)}\b"
        yield from (match.span() for match in re.finditer(bounded, text))


def _cued_names(text: str) -> Iterator[Span]:
    yield from (match.span(1) for match in SURE_NAME.finditer(text))
    for pattern in (LOOSE_NAME, TITLED):
        for match in pattern.finditer(text):
            if not NOT_NAMES.match(match[1]):
                yield match.span(1)
    for match in SURNAME_ONLY.finditer(text):
        yield match.span(1)
    for pattern in (EN_SURE, EN_TITLE, EN_LOOSE):
        for match in pattern.finditer(text):
            if not EN_NOT.match(match[1]):
                yield match.span(1)


def find_emails(text: str) -> Iterator[Span]:
    """Addresses of e-mail."""
    return (match.span() for match in EMAIL.finditer(text))


def find_accounts(text: str) -> Iterator[Span]:
    """Accounts of social media after their name."""
    return (match.span(1) for match in SOCIAL.finditer(text))


def find_birth_dates(text: str) -> Iterator[Span]:
    """Dates after a cue of birth; other dates stay."""
    return (match.span(1) for match in BIRTH.finditer(text))


def find_addresses(text: str) -> Iterator[Span]:
    """Postal addresses, Chinese and English."""
    for match in STREET.finditer(text):
        start, end = match.span()
        if len(match[1]) == MAX_STREET_CHARS:
            start = _extend_word(text, start)
        while more := MORE_HOUSE.match(text, end):
            end = more.end()
        yield _without_lead_in(text, _extend_left(text, start)), end
    for match in LEVELS.finditer(text):
        yield _without_lead_in(text, match.start()), match.end()
    yield from (match.span(1) for match in CUED_ADDRESS.finditer(text))
    yield from (match.span() for match in EN_ADDRESS.finditer(text))
    yield from (match.span(1) for match in EN_CUED_ADDRESS.finditer(text))


def _extend_word(text: str, start: int) -> int:
    """Where the word may begin that a street of the greatest length was cut out of."""
    for _ in range(MAX_STREET_CHARS):
        if start == 0 or not re.match(f"[{HAN}]", text[start - 1]):
            break
        start -= 1
    return start


def _extend_left(text: str, start: int) -> int:
    """Where the province, the city and the district before a street begin."""
    for _ in range(MAX_LEVELS):
        before = start - 1
        while before >= 0 and text[before] == " " and start - before < 3:
            before -= 1
        if before < 0 or text[before] not in ADMIN:
            return start
        begin = before
        while begin > 0 and before - begin < 9 and re.match(f"[{HAN}]", text[begin - 1]):
            if text[begin - 1] in ADMIN and before - begin >= 1:
                break
            begin -= 1
        start = begin
    return start


def _without_lead_in(text: str, start: int) -> int:
    lead_in = BEFORE_ADDRESS.match(text[start : start + 18])
    return start + lead_in.end() if lead_in else start
