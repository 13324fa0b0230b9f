"""What fills the slots of the questions from outside the little world; none is a matter of facts.py."""

from __future__ import annotations

from .example import Language

SLOTS_EN = {
    "country": "Peru,Chile,Brazil,Canada,Kenya,Egypt,Norway,Poland,Greece,Turkey,Mexico,Cuba,Nepal,Iran,Ghana,Finland,"
    "Portugal,Vietnam,Thailand,Iceland,Hungary,Morocco,Bolivia,India,Australia,Sweden,Austria,Belgium,Laos,Mongolia",
    "city": "Lima,Oslo,Cairo,Boston,Chicago,Lisbon,Athens,Dublin,Mumbai,Sydney,Toronto,Vienna,Prague,Warsaw,Lagos,"
    "Nairobi,Kyoto,Osaka,Shanghai,Naples,Hamburg,Lyon,Geneva,Helsinki,Bogota,Dallas,Hanoi,Seoul,Zurich,Antwerp",
    "person": "Napoleon,Mozart,Einstein,Newton,Cleopatra,Shakespeare,Confucius,Picasso,Beethoven,Darwin,Galileo,"
    "Columbus,Julius Caesar,Marie Curie,Li Bai,Plato,Aristotle,Gandhi,Lincoln,Tolstoy,Charlie Chaplin,Homer,Dante,Bach",
    "year": "1066,1215,1348,1492,1517,1648,1776,1789,1815,1848,1871,1914,1929,1945,1969,1989,2001,2012,2030,2050",
    "topic": "democracy,quantum physics,inflation,evolution,philosophy,climate change,economics,the Renaissance,"
    "blockchain,psychology,gravity,photosynthesis,chemistry,feminism,nuclear power,globalisation,religion,genetics,"
    "astrology,artificial intelligence,capitalism,meditation,law,electricity,architecture,vaccination",
    "dish": "pizza,lasagne,sushi,curry,dumplings,pancakes,goulash,paella,fried rice,chicken soup,apple pie,risotto,"
    "noodles,tacos,roast beef,chocolate cake,onion soup,omelette,bread rolls,potato salad,ramen,cheesecake",
    "machine": "a steam engine,a rocket,a fridge,a laptop,a camera,a printer,a submarine,a helicopter,a microwave,"
    "a tractor,a washing machine,a television,a motorbike,a telescope,a vacuum cleaner,a smartphone,a drone",
    "code": "Python,Java,Rust,C++,Haskell,JavaScript,Go,SQL,Perl,Ruby,Fortran,Bash",
    "number": "3,6,7,9,12,14,15,18,21,24,25,32,37,42,48,56,64,73,81,85,96,99,120,144,256,350,480,999",
    "illness": "the flu,a headache,asthma,diabetes,a cold,malaria,a broken arm,an allergy,back pain,measles,"
    "a fever,insomnia,toothache,high blood pressure,anaemia,a cough",
    "sport": "football,tennis,chess,hockey,basketball,rugby,golf,baseball,cricket,volleyball,badminton,boxing,curling",
    "thing": "the sea,autumn,a lonely robot,the moon,old shoes,a brave knight,umbrellas,my grandmother,a lost key,"
    "dragons,coffee,the first snow,bicycles,a talking tree,pirates,the desert,a small village,clocks,rain,ghosts",
    "beast": "zebra,camel,lizard,crab,snail,kangaroo,leopard,giraffe,penguin,rhino,crocodile,squirrel,beetle,whale,"
    "dolphin,hamster,gorilla,parrot,tortoise,shark,hedgehog,peacock,scorpion,seagull",
    "word": "gentle,ambiguous,noble,fragile,sincere,abstract,generous,courage,serene,obscure,curious,vivid,humble,"
    "rigid,brilliant,elegant,ancient,wisdom,bitter,liberty,modest,chaos",
    "tongue": "French,German,Spanish,Latin,Italian,Russian,Arabic,Hindi,Swedish,Korean,Turkish,Greek,Dutch,Swahili",
    "star": "Mars,Jupiter,Saturn,Venus,Neptune,Pluto,Sirius,the North Star,Mercury,Uranus,Andromeda,Halley's comet",
    "artwork": "Mona Lisa,Hamlet,Faust,War and Peace,The Magic Flute,Don Quixote,The Odyssey,Swan Lake,Macbeth,"
    "The Starry Night,Moby Dick,Carmen,Journey to the West,Robinson Crusoe,Titanic,King Lear",
}
SLOTS_ZH = {
    "country": "秘鲁,智利,巴西,加拿大,肯尼亚,埃及,挪威,波兰,希腊,土耳其,墨西哥,古巴,尼泊尔,伊朗,加纳,芬兰,葡萄牙,越南,"
    "泰国,冰岛,匈牙利,摩洛哥,玻利维亚,印度,澳大利亚,瑞典,奥地利,比利时,老挝,蒙古",
    "city": "利马,奥斯陆,开罗,波士顿,芝加哥,里斯本,雅典,都柏林,孟买,悉尼,多伦多,维也纳,布拉格,华沙,京都,大阪,上海,广州,"
    "成都,西安,杭州,武汉,昆明,南京,青岛,汉堡,里昂,首尔,河内,苏黎世",
    "person": "拿破仑,莫扎特,爱因斯坦,牛顿,莎士比亚,孔子,毕加索,贝多芬,达尔文,伽利略,哥伦布,凯撒,居里夫人,李白,杜甫,"
    "柏拉图,亚里士多德,甘地,林肯,托尔斯泰,卓别林,苏轼,鲁迅,诸葛亮,秦始皇",
    "year": "618,960,1066,1368,1492,1644,1776,1789,1815,1848,1871,1914,1929,1945,1969,1989,2001,2012,2030,2050",
    "topic": "民主,量子力学,通货膨胀,进化论,哲学,气候变化,经济学,文艺复兴,区块链,心理学,万有引力,光合作用,化学,核能,"
    "全球化,宗教,遗传学,占星术,人工智能,资本主义,冥想,法律,电磁波,建筑学,疫苗",
    "dish": "红烧肉,宫保鸡丁,麻婆豆腐,饺子,披萨,寿司,咖喱饭,鱼香肉丝,蛋炒饭,鸡汤,苹果派,牛肉面,火锅,包子,春卷,"
    "巧克力蛋糕,"
    "糖醋排骨,小笼包,土豆沙拉,番茄炒蛋",
    "machine": "蒸汽机,火箭,冰箱,笔记本电脑,照相机,打印机,潜水艇,直升机,微波炉,拖拉机,洗衣机,电视机,摩托车,望远镜,"
    "吸尘器,"
    "手机,无人机",
    "code": SLOTS_EN["code"],
    "number": SLOTS_EN["number"],
    "illness": "流感,头痛,哮喘,糖尿病,感冒,疟疾,骨折,过敏,腰痛,麻疹,发烧,失眠,牙痛,高血压,贫血,咳嗽",
    "sport": "足球,网球,象棋,曲棍球,篮球,橄榄球,高尔夫球,棒球,乒乓球,排球,羽毛球,拳击,围棋",
    "thing": "大海,秋天,孤独的机器人,月亮,旧鞋子,勇敢的骑士,雨伞,我的奶奶,丢失的钥匙,龙,咖啡,初雪,会说话的树,海盗,沙漠,"
    "小村庄,时钟,雨夜,幽灵,竹林",
    "beast": "斑马,骆驼,蜥蜴,螃蟹,蜗牛,袋鼠,狼,长颈鹿,企鹅,章鱼,鳄鱼,松鼠,甲虫,鲸鱼,海豚,仓鼠,大猩猩,鹦鹉,乌龟,鲨鱼,"
    "刺猬,"
    "蝎子,蝴蝶",
    "word": "温柔,模糊,高尚,脆弱,真诚,抽象,慷慨,勇气,宁静,晦涩,好奇,生动,谦虚,僵硬,辉煌,优雅,古老,智慧,苦涩,自由,混乱",
    "tongue": "法语,德语,西班牙语,拉丁语,意大利语,俄语,阿拉伯语,印地语,瑞典语,韩语,土耳其语,希腊语,荷兰语,日语",
    "star": "火星,木星,土星,金星,海王星,冥王星,天狼星,北极星,水星,天王星,仙女座星系,哈雷彗星",
    "artwork": "《蒙娜丽莎》,《哈姆雷特》,《浮士德》,《战争与和平》,《魔笛》,《堂吉诃德》,《奥德赛》,《天鹅湖》,"
    "《红楼梦》,"
    "《星空》,《西游记》,《水浒传》,《三国演义》,《泰坦尼克号》,《茶馆》",
}

SLOTS: dict[Language, dict[str, list[str]]] = {
    "en": {slot: values.split(",") for slot, values in SLOTS_EN.items()},
    "zh": {slot: values.split(",") for slot, values in SLOTS_ZH.items()},
}
