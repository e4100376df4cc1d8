/* Ranks pages by the words of a query that they have, the rarer the better. Sphinx shows only pages
   that have every word, which of a question of eight words are none. */
"use strict";

if (typeof Search !== "undefined") {
  /* Whether a word of a page is meant by one of the query: longer ones may go on differently. */
  const matches = (own, asked) => own === asked || (asked.length > 4 && own.startsWith(asked));

  /* The numbers of the pages that have a word, or what contains it where none has it. */
  const pagesWith = (entries, word) => {
    const all = Object.keys(entries);
    const exact = all.filter((own) => matches(own, word));
    const found = exact.length ? exact : all.filter((own) => own.includes(word));
    return found.flatMap((own) => entries[own]);
  };

  /* How many different words each page has, beside the mean: long pages have many by chance. */
  const lengths = () => {
    const counts = new Array(Search._index.docnames.length).fill(0);
    for (const pages of Object.values(Search._index.terms))
      for (const page of [pages].flat()) counts[page] += 1;
    const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
    return counts.map((count) => count / mean);
  };

  /* The section of each page whose heading has most of the words, by weight. */
  const bestSections = (weights) => {
    const stemmer = new Stemmer();
    const best = new Map();
    for (const [title, places] of Object.entries(Search._index.alltitles)) {
      const own = splitQuery(title.toLowerCase()).map((word) => stemmer.stemWord(word));
      let weight = 0;
      for (const [asked, value] of weights)
        if (own.some((word) => matches(word, asked))) weight += value;
      for (const [page, anchor] of places)
        if (weight > (best.get(page)?.weight ?? 0)) best.set(page, { weight, title, anchor });
    }
    return best;
  };

  Search.performTermsSearch = (searchTerms, excludedTerms) => {
    const { terms, titleterms, titles, docnames, filenames } = Search._index;
    const count = docnames.length;
    const weights = new Map();
    const texts = new Array(count).fill(0);
    for (const word of [...searchTerms].filter((word) => word.length > 1)) {
      const pages = new Set([...pagesWith(terms, word), ...pagesWith(titleterms, word)]);
      if (pages.size === 0) continue;
      weights.set(word, Math.log(1 + count / pages.size));
      for (const page of pages) texts[page] += weights.get(word);
    }
    const total = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
    const excluded = new Set([...excludedTerms].flatMap((word) => pagesWith(terms, word)));
    const sections = bestSections(weights);
    const length = lengths();

    const results = [];
    for (let page = 0; page < count; page++) {
      if (texts[page] === 0 || excluded.has(page)) continue;
      const best = sections.get(page) ?? { weight: 0, title: titles[page], anchor: null };
      const share = texts[page] / Math.sqrt(0.5 + length[page] / 2) + best.weight;
      results.push([
        docnames[page],
        best.title === titles[page] ? best.title : `${titles[page]} > ${best.title}`,
        best.anchor === null ? "" : `#${best.anchor}`,
        null,
        (Scorer.term * share) / total,
        filenames[page],
        SearchResultKind.text,
      ]);
    }
    const least = Math.max(0, ...results.map((result) => result[4])) / 3;
    return results.filter((result) => result[4] >= least);
  };
}
