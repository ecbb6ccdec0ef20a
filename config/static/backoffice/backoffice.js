/* Comfort for the pages of our own; every page works without it. */
"use strict";

(() => {
    const lightUp = (timeline, reference) => {
        for (const entry of timeline.querySelectorAll("[data-ref]")) {
            entry.classList.toggle("bo-lit", reference !== null && entry.dataset.ref === reference);
        }
    };

    const watchTimeline = (timeline) => {
        const referenceAt = (target) => target.closest("[data-ref]")?.dataset.ref ?? null;
        for (const event of ["mouseover", "focusin"]) {
            timeline.addEventListener(event, ({ target }) => lightUp(timeline, referenceAt(target)));
        }
        for (const event of ["mouseleave", "focusout"]) {
            timeline.addEventListener(event, () => lightUp(timeline, null));
        }
        for (const box of document.querySelectorAll("[data-bo-kind]")) {
            box.addEventListener("change", () => {
                for (const entry of timeline.querySelectorAll(`[data-kind="${box.dataset.boKind}"]`)) {
                    entry.hidden = !box.checked;
                }
            });
        }
    };

    /* Minor units of what was typed, exactly, or null: no float touches an amount. */
    const parseMinor = (text, exponent) => {
        const match = /^(\d{1,15})(?:\.(\d*))?$/.exec(text.trim());
        if (!match || (match[2] ?? "").length > exponent) return null;
        return BigInt(match[1] + (match[2] ?? "").padEnd(exponent, "0"));
    };

    const formatMinor = (minor, exponent, currency) => {
        const digits = minor.toString().padStart(exponent + 1, "0");
        const whole = digits.slice(0, digits.length - exponent);
        return exponent ? `${whole}.${digits.slice(-exponent)} ${currency}` : `${whole} ${currency}`;
    };

    const watchAmount = (input) => {
        const told = input.closest(".bo-field")?.querySelector("[data-bo-after]");
        if (!told) return;
        const { boCurrency: currency, boWords: words } = input.dataset;
        const exponent = Number(input.dataset.boExponent);
        const left = BigInt(input.dataset.boLeft);
        const done = BigInt(input.dataset.boDone);
        const [doneWord, leftWord] = words.split("|");
        const show = (minor) => formatMinor(minor, exponent, currency);
        input.addEventListener("input", () => {
            const wanted = parseMinor(input.value, exponent);
            if (wanted === null || wanted <= 0n) {
                told.textContent = `This is not an amount in ${currency}. ${show(left)} left.`;
            } else if (wanted > left) {
                told.textContent = `This is more than the ${show(left)} left.`;
            } else {
                told.textContent = `${show(left)} left. After this: ${doneWord} ${show(done + wanted)}, ${leftWord} ${show(left - wanted)}.`;
            }
        });
    };

    /* A second click while the first is on its way is ignored; the server refuses it as well. */
    const sendOnce = (form) => {
        form.addEventListener("submit", (event) => {
            if (form.dataset.sent) event.preventDefault();
            form.dataset.sent = "yes";
        });
        window.addEventListener("pageshow", () => delete form.dataset.sent);
    };

    document.addEventListener("DOMContentLoaded", () => {
        document.getElementById("content")?.setAttribute("role", "main"); // the theme has no landmark for it
        document.querySelectorAll("[data-bo-timeline]").forEach(watchTimeline);
        document.querySelectorAll("[data-bo-left]").forEach(watchAmount);
        document.querySelectorAll("form[data-bo-once]").forEach(sendOnce);
    });
})();
