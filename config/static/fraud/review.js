/* The case page by keyboard, and the heartbeat of its claim; the page works without. */
"use strict";

(() => {
    const TYPED = "textarea, select, input:not([type=radio]):not([type=checkbox])";
    const KEYS_OFF = "fraud-keys-off";

    const tell = (words) => {
        const told = document.querySelector("[data-fraud-told]");
        if (told) told.textContent = words;
    };

    /* --- keys ---------------------------------------------------------------------------------------------- */

    const groupOf = (radio) => radio.closest("fieldset");
    const headingOf = (radio) => groupOf(radio).querySelector("legend").firstChild.textContent.trim();

    const choose = (radio) => {
        radio.checked = true;
        radio.focus();
        radio.dispatchEvent(new Event("change", { bubbles: true }));
    };

    const chooseByNumber = (number) => {
        const chosen = document.querySelector("[data-fraud-decide] input[type=radio]:checked");
        const radio = chosen && groupOf(chosen).querySelectorAll("input[type=radio]")[number - 1];
        if (radio) choose(radio);
        return Boolean(radio);
    };

    const focusFirst = (dialog) => dialog?.querySelector(`${TYPED}:not([type=hidden])`)?.focus();

    const perform = (target) => {
        if (target.matches("input[type=radio]")) return choose(target);
        if (target.matches("input, textarea")) return target.focus();
        target.click();
        const dialog = target.getAttribute("popovertarget");
        if (dialog) focusFirst(document.getElementById(dialog));
    };

    const isOff = () => localStorage.getItem(KEYS_OFF) === "yes";

    const submitFrom = (field) => {
        const form = field.closest("form");
        form?.requestSubmit(form.querySelector("button:not([type=button])"));
    };

    /* In a field letters are letters; only Escape leaves it, and Enter or Ctrl+Enter sends it. */
    const onTyping = (event) => {
        if (event.key === "Escape" && !event.target.closest("[popover]")) event.target.blur();
        const sends = event.target.matches("select") || ((event.ctrlKey || event.metaKey) && event.target.matches("textarea"));
        if (event.key === "Enter" && sends && event.target.closest("[data-fraud-case]")) {
            event.preventDefault();
            submitFrom(event.target);
        }
    };

    const onKey = (event) => {
        if (event.target.closest?.(`${TYPED}, [contenteditable]`)) return onTyping(event);
        if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat || isOff()) return;
        if (document.querySelector("[popover]:popover-open")) return;
        const isDone = /^[1-9]$/.test(event.key) && chooseByNumber(Number(event.key));
        const target = isDone ? null : document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`);
        if (target) perform(target);
        if (target || isDone) event.preventDefault();
    };

    const watchKeys = () => {
        document.addEventListener("keydown", onKey);
        for (const box of document.querySelectorAll("[data-fraud-keys]")) {
            box.checked = !isOff();
            box.addEventListener("change", () => localStorage.setItem(KEYS_OFF, box.checked ? "no" : "yes"));
        }
    };

    /* --- the decision -------------------------------------------------------------------------------------- */

    const watchDecision = (form) => {
        const button = form.querySelector("[data-fraud-submit]");
        const show = () => {
            const chosen = form.querySelector("input[type=radio]:checked");
            if (!chosen) return;
            const heading = headingOf(chosen);
            const words = `${heading}: ${chosen.closest("label").textContent.trim()}`;
            button.textContent = words;
            button.classList.remove("fraud-button-primary");
            button.classList.toggle("fraud-button-success", heading === "Approve");
            button.classList.toggle("fraud-button-danger", heading === "Reject");
            tell(`${words}. Enter decides.`);
        };
        form.addEventListener("change", ({ target }) => target.name === "choice" && show());
        show();
    };

    /* --- the claim ----------------------------------------------------------------------------------------- */

    const watchClaim = (form) => {
        const lose = (words) => {
            clearInterval(timer);
            const lost = document.querySelector("[data-fraud-lost]");
            lost.textContent = words;
            lost.hidden = false;
            document.querySelector("[data-fraud-claim]").textContent = "Not yours any more";
        };
        const beat = async () => {
            let answer;
            try {
                answer = await fetch(form.action, { method: "POST", body: new FormData(form), redirect: "error" });
            } catch {
                return tell("The server was not reached: your claim was not extended.");
            }
            if (!answer.ok) return lose("Your session has ended, and with it your claim. Log in again.");
            const { held, told } = await answer.json();
            if (!held) return lose(told);
            document.querySelector("[data-fraud-claim]").textContent = told;
        };
        const timer = setInterval(beat, Number(form.dataset.fraudHeartbeat) * 1000);
    };

    document.addEventListener("DOMContentLoaded", () => {
        if (!document.querySelector("[data-fraud-case]")) return;
        watchKeys();
        document.querySelectorAll("[data-fraud-decide]").forEach(watchDecision);
        document.querySelectorAll("[data-fraud-heartbeat]").forEach(watchClaim);
    });
})();
