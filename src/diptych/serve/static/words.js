// What the page says, in each language it speaks.
export const WORDS = {
  en: {
    "name": "English",
    "tab.search": "Search", "tab.tags": "Tags", "tab.why": "Why", "tab.caption": "Caption", "tab.ask": "Ask", "tab.generate": "Draw",
    "search.hint": "Describe a picture, or drop one here", "search.go": "Search", "search.more": "Show more",
    "search.sample": "Some of the {0} pictures", "search.found": "{0} nearest of {1} pictures, {2} ms",
    "search.none": "Nothing found", "search.like": "More like this picture",
    "picture.pick": "Search by a picture", "picture.drop": "Drop or paste a picture here, or choose one", "picture.other": "Choose another picture",
    "picture.first": "Choose a picture first", "picture.large": "The picture has {0} MB; at most {1} are allowed", "picture.gone": "This picture cannot be read any more",
    "tags.ask": "What could it be? One label a line", "tags.hint": "a dog\na cat\na beach", "tags.go": "Tag",
    "why.ask": "A text that the picture may meet", "why.hint": "two dogs play in the grass", "why.go": "Show why",
    "why.score": "Similarity {0}", "why.chance": "Log-probability {0}", "why.how": "Picture by {0}, words by {1}", "why.show": "Show the heat map", "why.text": "Why “{0}”?", "why.wait": "Looking for reasons …", "why.word": "Choose a word to see where it comes from",
    "caption.ask": "The model writes what it sees.", "caption.go": "Write", "caption.why": "Why these words?",
    "ask.ask": "A question about the picture", "ask.hint": "what colour is the ball?", "ask.go": "Ask", "ask.why": "Why “{0}”?",
    "generate.ask": "The model draws what you describe. Choose a picture to save it.", "generate.hint": "a large red circle", "generate.go": "Draw", "generate.other": "Draw others",
    "like": "More like this", "before": "Previous picture", "next": "Next picture", "close": "Close",
    "token.ask": "This server asks for a token.", "token.go": "Enter", "docs": "API",
    "about": "{0}, diptych {1}", "error.network": "The server does not answer", "error.text": "Type something first",
  },
  zh: {
    "name": "中文",
    "tab.search": "搜索", "tab.tags": "标签", "tab.why": "解释", "tab.caption": "描述", "tab.ask": "提问", "tab.generate": "作画",
    "search.hint": "描述一张图片，或把图片拖到这里", "search.go": "搜索", "search.more": "显示更多",
    "search.sample": "共 {0} 张图片，这里是其中一些", "search.found": "{1} 张图片中最接近的 {0} 张，{2} 毫秒",
    "search.none": "没有找到", "search.like": "与这张图片相似的图片",
    "picture.pick": "以图搜图", "picture.drop": "把图片拖放或粘贴到这里，或选择一张", "picture.other": "换一张图片",
    "picture.first": "请先选择一张图片", "picture.large": "图片有 {0} MB，最多允许 {1} MB", "picture.gone": "这张图片已无法读取",
    "tags.ask": "它可能是什么？每行一个标签", "tags.hint": "狗\n猫\n海滩", "tags.go": "打标签",
    "why.ask": "一句可能符合图片的话", "why.hint": "两只狗在草地上玩耍", "why.go": "解释",
    "why.score": "相似度 {0}", "why.chance": "对数概率 {0}", "why.how": "图片：{0}，文字：{1}", "why.show": "显示热力图", "why.text": "为什么是“{0}”？", "why.wait": "正在寻找原因……", "why.word": "点一个词，看它来自图片的哪里",
    "caption.ask": "让模型写出它看到的内容。", "caption.go": "写描述", "caption.why": "为什么是这些词？",
    "ask.ask": "关于图片的问题", "ask.hint": "球是什么颜色的？", "ask.go": "提问", "ask.why": "为什么是“{0}”？",
    "generate.ask": "模型会画出你描述的内容。点图片即可保存。", "generate.hint": "一个大的红色圆形", "generate.go": "作画", "generate.other": "再画几张",
    "like": "找相似图片", "before": "上一张", "next": "下一张", "close": "关闭",
    "token.ask": "此服务器需要令牌。", "token.go": "进入", "docs": "接口",
    "about": "{0}，diptych {1}", "error.network": "服务器没有响应", "error.text": "请先输入内容",
  },
};

const wanted = localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en");
let language = wanted in WORDS ? wanted : "en";

export function say(name, ...values) {
  return WORDS[language][name].replace(/\{(\d)\}/g, (_, place) => values[Number(place)]);
}

export function other() {
  return WORDS[language === "en" ? "zh" : "en"].name;
}

export function change() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
}

export function translate() {
  document.documentElement.lang = language;
  for (const one of document.querySelectorAll("[data-say]")) one.textContent = say(one.dataset.say);
  for (const one of document.querySelectorAll("[data-hint]")) {
    one.placeholder = say(one.dataset.hint);
    if (!one.labels.length) one.setAttribute("aria-label", one.placeholder);
  }
  for (const one of document.querySelectorAll("[data-title]")) { one.title = say(one.dataset.title); one.setAttribute("aria-label", one.title); }
}
