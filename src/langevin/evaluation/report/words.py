"""What a report says, in English and in Chinese: key -> (English, Chinese). Values stand in braces."""

from typing import Any

LANGUAGES = ("en", "zh")

WORDS: dict[str, tuple[str, str]] = {
    "title": ("Evaluation of {name}", "{name} 的评估报告"),
    "subtitle": (
        "{count:,} generated items beside {train:,} training and {held_out:,} held-out ones. {made}, langevin {version}.",
        "{count:,} 个生成样本，对照 {train:,} 个训练样本和 {held_out:,} 个留出样本。{made}，langevin {version}。",
    ),
    # headings
    "verdict": ("In short", "结论"),
    "samples": ("Samples", "样本"),
    "samples.note": (
        "Drawn from seeds {first} to {last}, not chosen. The same seeds give the same samples again.",
        "由种子 {first} 至 {last} 生成，未经挑选；同样的种子会得到同样的样本。",
    ),
    "beside": ("Real beside generated", "真实与生成对照"),
    "beside.note": ("Both halves are drawn at random.", "两边均为随机抽取。"),
    "figures": ("Figures", "指标"),
    "figures.note": (
        "The floor is what new real items score in the place of the generated ones, at the same count: no model can be expected to do "
        "better. The interval holds the truth in 95 of 100 cases; that of a Frechet distance is for infinitely many items, and "
        "therefore lies below the value from few. The last column says how many standard errors a figure lies on the bad side of its floor, where that is more than two.",
        "“下限”是同样数量的全新真实样本在同一指标上的得分，任何模型都不应指望更好。区间以 95% 的把握包含真值；Fréchet 距离的区间对应无穷多样本，"
        "因此低于由少量样本算出的数值。最后一列是该指标比下限差多少个标准误（不足两个则不写）。",
    ),
    "figure": ("figure", "指标"),
    "generated": ("generated", "生成"),
    "interval": ("95 %", "95% 区间"),
    "floor": ("real floor", "真实下限"),
    "gap": ("off by, s.e.", "差距（标准误）"),
    "gap.none": ("–", "–"),
    "higher": ("higher is better", "越高越好"),
    "lower": ("lower is better", "越低越好"),
    "features": ("What the figures are taken in", "指标所用的特征"),
    "features.row": (
        "{name}: {dim} numbers an item, digest {digest}{accuracy}",
        "{name}：每个样本 {dim} 个数，摘要 {digest}{accuracy}",
    ),
    "features.accuracy": (
        "; finds the class of {accuracy:.1%} of held-out real items",
        "；对留出的真实样本分类正确率 {accuracy:.1%}",
    ),
    "features.fid": (
        "None of these is FID, and none may be compared with published FID values.",
        "以上均不是 FID，不能与公开发表的 FID 数值比较。",
    ),
    "copies": ("Are they copies?", "是否照抄训练数据？"),
    "copies.row": (
        "In {space}: {named:,} of {count:,} generated items are copies or near-copies. {nearer:.1%} are nearer to a training item than to "
        "any held-out one, {expected:.1%} would be by chance{p}.",
        "在{space}中：{count:,} 个生成样本里有 {named:,} 个是照抄或近似照抄。{nearer:.1%} 离训练样本比离任何留出样本更近，偶然情形下应为 {expected:.1%}{p}。",
    ),
    "copies.p": (" (p = {p:.2g})", "（p = {p:.2g}）"),
    "copies.alone": (
        "In {space}: {named:,} of {count:,} generated items are copies or near-copies. Nothing is held out, so that chance cannot be told.",
        "在{space}中：{count:,} 个生成样本里有 {named:,} 个是照抄或近似照抄。没有留出样本，无法给出显著性。",
    ),
    "copies.sources": ("Copied training items: {names}", "被照抄的训练样本：{names}"),
    "copies.source": ("{name} ({times}×{repeats})", "{name}（{times} 次{repeats}）"),
    "copies.repeats": (", {count} times in the training set", "，在训练集中出现 {count} 次"),
    "copies.suspects": (
        "Training items that are there more than once, which models learn by heart first: {names}",
        "训练集中重复出现的样本（模型最先背下的就是它们）：{names}",
    ),
    "copies.sheet": (
        "The closest generated items, each above its nearest training item. Below is how close it is: 1 is the same item, 0.1 is usual.",
        "最接近训练数据的生成样本，下方是与其最近的训练样本。数字表示接近程度：1 为完全相同，0.1 左右属正常。",
    ),
    "course": ("How a sample comes about", "样本是怎样产生的"),
    "course.note": (
        "From noise to data at steps {steps} of {total}: upper rows what the solver holds, lower rows what the network takes it to be.",
        "从噪声到数据（共 {total} 步，图示第 {steps} 步）：上行是求解器当前的状态，下行是网络对结果的估计。",
    ),
    "training": ("Training", "训练"),
    "training.facts": (
        "{steps:,} steps in {minutes:.1f} minutes, {parameters:,} parameters.",
        "{minutes:.1f} 分钟内训练 {steps:,} 步，{parameters:,} 个参数。",
    ),
    "training.line": ("Held-out items say: {line}.", "留出样本显示：{line}。"),
    "chart.loss": ("loss over training", "训练过程中的损失"),
    "chart.levels": ("held-out loss by noise level", "各噪声水平的留出损失"),
    "chart.step": ("step", "步数"),
    "chart.sigma": ("noise level σ/α", "噪声水平 σ/α"),
    "chart.loss.y": ("loss", "损失"),
    "chart.batch": ("training, batch by batch", "训练（逐批）"),
    "chart.seen": ("training items", "训练样本"),
    "chart.unseen": ("held-out items", "留出样本"),
    "chart.generated": ("generated", "生成"),
    "chart.floor": ("real floor", "真实下限"),
    "curves": ("Quality curves", "质量曲线"),
    "curves.steps": ("over evaluations of the network", "随网络求值次数"),
    "curves.guidance": ("over the guidance scale", "随引导强度"),
    "curves.average": ("over the width of the weights' average", "随权重平均的宽度"),
    "curves.training": ("over training", "随训练步数"),
    "curves.recommended": ("recommended: {value}", "推荐值：{value}"),
    "bits": ("Likelihood", "似然"),
    "bits.row": (
        "{value:.4f} ± {error:.4f} bits a dimension ({how}; {count:,} held-out items)",
        "每维 {value:.4f} ± {error:.4f} 比特（{how}；{count:,} 个留出样本）",
    ),
    "data": ("The data", "数据"),
    "data.source": ("source", "来源"),
    "data.items": ("items", "样本数"),
    "data.items.value": (
        "{items:,}: {train:,} to train on, {held_out:,} held out",
        "{items:,}：训练 {train:,}，留出 {held_out:,}",
    ),
    "data.shape": ("shape", "形状"),
    "data.classes": ("classes", "类别"),
    "data.none": ("none", "无"),
    "data.duplicates": ("duplicates", "重复"),
    "data.duplicates.value": (
        "{exact:,} repeat another exactly, {near:,} pairs look alike, {leaks:,} pairs across the split",
        "{exact:,} 个与其他样本完全相同，{near:,} 对看上去相似，{leaks:,} 对跨越训练与留出",
    ),
    "data.rejected": ("rejected", "剔除"),
    "data.fingerprint": ("fingerprint", "指纹"),
    "recipe": ("Recipe, machine, cost", "配方、机器与代价"),
    "recipe.sampling": ("sampling", "采样"),
    "recipe.machine": ("machine", "机器"),
    "recipe.time": ("time", "用时"),
    "recipe.time.value": ("training {training}, evaluation {evaluation}", "训练 {training}，评估 {evaluation}"),
    "recipe.energy": ("energy, roughly", "能耗（估计）"),
    "recipe.energy.value": (
        "{kwh:.3g} kWh, at {watts:g} W ({how})",
        "{kwh:.3g} 千瓦时，按 {watts:g} 瓦计（{how}）",
    ),
    "energy.cpu": ("10 W a busy thread", "每个满载线程 10 瓦"),
    "energy.gpu": ("350 W a GPU", "每块 GPU 350 瓦"),
    "recipe.settings": ("all settings", "全部设置"),
    "seconds": ("{value:.0f} s", "{value:.0f} 秒"),
    "minutes": ("{value:.1f} min", "{value:.1f} 分钟"),
    "again": ("To make this again", "如何重现"),
    "comparison": ("{a} beside {b}", "{a} 与 {b} 对比"),
    "comparison.note": (
        "Both are held against the same real items. The difference is called certain where luck would exceed it in less than one case of "
        "twenty, after Holm's correction for looking at {count} figures.",
        "两者对照同一批真实样本。若偶然造成如此差别的机会（对 {count} 个指标做 Holm 校正后）低于 5%，则认为差别可信。",
    ),
    "comparison.better": ("{name} is better", "{name} 更好"),
    "comparison.even": ("not told apart", "无法区分"),
    # what the verdict says
    "say.like": (
        "Samples are not told apart from new real items by any distance taken here.",
        "就这里的各种距离而言，样本与全新的真实样本无法区分。",
    ),
    "say.near": (
        "Samples come near to real items: {precision:.0%} lie where real items lie (new real items: {precision_floor:.0%}), and they reach "
        "{recall:.0%} of the real variety ({recall_floor:.0%}).",
        "样本接近真实：{precision:.0%} 落在真实样本所在之处（全新真实样本为 {precision_floor:.0%}），并覆盖了真实多样性的 {recall:.0%}（{recall_floor:.0%}）。",
    ),
    "say.unfaithful": (
        "Many samples do not look real: {precision:.0%} lie where real items lie, of new real ones {precision_floor:.0%}. Longer training or "
        "a larger network helps most.",
        "许多样本不够真实：只有 {precision:.0%} 落在真实样本所在之处，全新真实样本为 {precision_floor:.0%}。最有效的办法是训练更久或用更大的网络。",
    ),
    "say.narrow": (
        "Samples lack variety: they reach {recall:.0%} of what is real, new real items {recall_floor:.0%}. Less guidance, or longer training.",
        "样本缺少多样性：只覆盖真实的 {recall:.0%}，全新真实样本为 {recall_floor:.0%}。可以减弱引导或延长训练。",
    ),
    "say.far": (
        "The Frechet distance ({name}) is {value:.3g} where new real items score {floor:.3g}.",
        "Fréchet 距离（{name}）为 {value:.3g}，全新真实样本为 {floor:.3g}。",
    ),
    "say.copies": (
        "The model copies: {named:,} of {count:,} samples are training items again, or nearly.",
        "模型在照抄：{count:,} 个样本中有 {named:,} 个就是训练样本，或几乎一样。",
    ),
    "say.leaning": (
        "Samples lean towards training items more than chance allows (p = {p:.2g}), but none is a copy.",
        "样本向训练样本偏近，超出偶然范围（p = {p:.2g}），但没有照抄。",
    ),
    "say.new": (
        "No sign of copying: samples are as far from training items as new real ones are.",
        "没有照抄的迹象：样本与训练样本的距离和全新真实样本一样远。",
    ),
    "say.new.alone": (
        "No sample is a copy of a training item; nothing is held out to say more.",
        "没有样本照抄训练数据；由于没有留出样本，无法进一步判断。",
    ),
    "say.labels": (
        "Asked for a class, it gives it in {value:.0%} of the cases; of real items the judge finds {floor:.0%}.",
        "指定类别时，{value:.0%} 的样本确属该类；评判器对真实样本的正确率为 {floor:.0%}。",
    ),
    "say.run": ("The run: {line}; {advice}.", "训练状态：{line}。建议：{advice}。"),
    "say.few": (
        "Figures stand on {count:,} items only: they are rough. With more held-out items they would be sharper.",
        "指标只基于 {count:,} 个样本，比较粗略；留出样本更多时会更准确。",
    ),
    "say.leaks": (
        "{leaks:,} pairs of items that are equal or alike lie across training and held-out data: floors are a little too low.",
        "有 {leaks:,} 对相同或相似的样本跨越训练与留出数据：下限略为偏低。",
    ),
    "say.halves": (
        "Too little is held out: training items were cut into two halves, one as reference and one for the floor.",
        "留出样本太少：训练样本被分为两半，一半作参照，一半用于下限。",
    ),
    "say.better": (
        "{name} is better in {count} of {total} figures, and worse in {worse}.",
        "{name} 在 {total} 个指标中有 {count} 个更好，{worse} 个更差。",
    ),
    "say.even": ("The two are not told apart by any figure.", "没有任何指标能区分两者。"),
    # figures by their first word
    "of.frechet": ("distance of the two laws: mean and spread of features", "两个分布的距离：特征的均值与散布"),
    "of.kernel": ("distance of the two laws by moments up to the third", "两个分布的距离：直到三阶矩"),
    "of.precision": ("share of samples that lie where real items lie", "落在真实样本所在之处的样本比例"),
    "of.recall": ("share of real items that samples reach", "被样本覆盖的真实样本比例"),
    "of.density": ("how densely samples lie among real items", "样本在真实样本之间的密度"),
    "of.coverage": ("share of real neighbourhoods that hold a sample", "含有样本的真实邻域比例"),
    "of.spectrum": ("power at each fineness of detail, in decibels", "各细节尺度上的功率差（分贝）"),
    "of.sliced": ("distance of the two laws along lines", "两个分布沿各方向的距离"),
    "of.told": (
        "how often a classifier tells a sample from a real item; 1/2 is luck",
        "分类器区分样本与真实的正确率，1/2 为随机",
    ),
    "of.copies": (
        "share of samples nearer to training items than 99 of 100 new real ones",
        "比 99% 的全新真实样本更接近训练样本的比例",
    ),
    "of.label": ("share of samples in the class that was asked for", "属于所要求类别的样本比例"),
    "of.class": ("how many classes, how clearly (1 to their number)", "类别的数量与清晰程度（1 到类别数）"),
    "of.trained": (
        "accuracy on real items of a classifier trained on samples",
        "用样本训练的分类器在真实样本上的正确率",
    ),
    "of.fid": ("FID, with the weights that were given", "FID（使用给定的权重）"),
    "of.clip": ("agreement of pictures and their texts", "图像与文字的一致程度"),
    "pixels": ("pixels", "像素"),
}


def say(lang: str, key: str, **values: Any) -> str:
    """The text of `key` in a language, with its values."""
    return WORDS[key][LANGUAGES.index(lang)].format(**values)
