// Documents of one year, asked in another.
const MOMENT = /(\d{4})-(\d{2})-(\d{2})T/g;

/** Every day that a document names, moved by so many months; the last of a month stays the last. */
export function moved(document, months) {
  return document.replace(MOMENT, (_, year, month, day) => {
    const index = Number(year) * 12 + Number(month) - 1 + months;
    const [toYear, toMonth] = [Math.floor(index / 12), (index % 12) + 1];
    const last = new Date(Date.UTC(toYear, toMonth, 0)).getUTCDate();
    const two = (number) => String(number).padStart(2, "0");
    return `${toYear}-${two(toMonth)}-${two(Math.min(Number(day), last))}T`;
  });
}
