/* The editor of a rule: checks, hits and completions while somebody types. The page works without it. */
"use strict";

(() => {
    const CHECK_AFTER = 300;
    const COMPLETE_AFTER = 60;
    const OPENERS = /[A-Za-z_"{(]$/;

    const after = (milliseconds, action) => {
        let timer;
        return (...args) => {
            clearTimeout(timer);
            timer = setTimeout(() => action(...args), milliseconds);
        };
    };

    /* Only the answer to the newest question counts. */
    const asker = (form, url) => {
        let running = null;
        return async (extra = {}) => {
            running?.abort();
            running = new AbortController();
            const body = new FormData(form);
            for (const [name, value] of Object.entries(extra)) body.set(name, value);
            try {
                const answer = await fetch(url, { method: "POST", body, signal: running.signal });
                return answer.ok ? await answer.json() : { refused: answer.status };
            } catch (error) {
                return error.name === "AbortError" ? null : { refused: 0 };
            }
        };
    };

    const tell = (panel, words) => {
        const line = document.createElement("p");
        line.className = "bo-error";
        line.textContent = words;
        panel.replaceChildren(line);
    };

    /* The text again, behind the textarea: it carries the underlines, and tells where a character stands. */
    const makeMirror = (area, mirror) => {
        const draw = (marks) => {
            mirror.replaceChildren();
            let at = 0;
            for (const { start, end } of marks) {
                if (start < at) continue;
                const mark = document.createElement("mark");
                mark.textContent = area.value.slice(start, Math.max(end, start + 1)) || " ";
                mirror.append(area.value.slice(at, start), mark);
                at = Math.max(end, start + 1);
            }
            mirror.append(area.value.slice(at), "\n");
            area.style.height = "auto";
            area.style.height = `${area.scrollHeight + 2}px`;
        };
        const placeOf = (index) => {
            const caret = document.createElement("span");
            caret.textContent = "\u200b";
            mirror.replaceChildren(area.value.slice(0, index), caret, area.value.slice(index), "\n");
            const place = { left: caret.offsetLeft, top: caret.offsetTop + caret.offsetHeight };
            return place;
        };
        return { draw, placeOf };
    };

    const makeCompletions = (area, list, ask, mirror, changed) => {
        let items = [];
        let active = 0;
        let newest = 0; // an answer that comes after the list was closed is not shown

        const close = () => {
            newest += 1;
            items = [];
            list.hidden = true;
            area.setAttribute("aria-expanded", "false");
            area.removeAttribute("aria-activedescendant");
        };
        const choose = (index) => {
            active = (index + items.length) % items.length;
            [...list.children].forEach((option, place) => {
                option.setAttribute("aria-selected", String(place === active));
            });
            list.children[active].scrollIntoView({ block: "nearest" });
            area.setAttribute("aria-activedescendant", list.children[active].id);
        };
        const accept = (item) => {
            let end = area.selectionEnd;
            const last = item.text.at(-1);
            if (`"(}`.includes(last) && area.value[end] === last) end += 1;
            area.setRangeText(item.text, item.start, end, "end");
            close();
            changed();
        };
        const show = (found, isAsked) => {
            const typed = found.length ? area.value.slice(found[0].start, area.selectionEnd) : "";
            const isBehindText = !typed && found[0]?.kind !== "word" && area.value[area.selectionEnd - 1] === '"';
            if (!found.length || found[0].text === typed || (isBehindText && !isAsked)) return close();
            items = found;
            list.replaceChildren(...found.map((item, place) => {
                const option = document.createElement("li");
                option.id = `completion-${place}`;
                option.setAttribute("role", "option");
                const word = document.createElement("code");
                word.textContent = item.text;
                const help = document.createElement("span");
                help.textContent = item.help || item.kind;
                option.append(word, help);
                option.addEventListener("mousedown", (event) => {
                    event.preventDefault();
                    accept(item);
                });
                return option;
            }));
            const { left, top } = mirror.placeOf(found[0].start);
            list.hidden = false;
            const room = area.offsetWidth - list.offsetWidth;
            list.style.left = `${Math.max(0, Math.min(left, room))}px`;
            list.style.top = `${top + 4}px`;
            area.setAttribute("aria-expanded", "true");
            choose(0);
        };
        const open = async (isAsked, ticket = ++newest) => {
            if (ticket !== newest || area.value.length > Number(area.form.dataset.most)) return;
            const answer = await ask({ cursor: area.selectionEnd });
            if (answer && ticket === newest && document.activeElement === area) show(answer.items ?? [], isAsked);
        };
        const openSoon = after(COMPLETE_AFTER, open);

        area.addEventListener("keydown", (event) => {
            if (event.key === " " && event.ctrlKey) {
                event.preventDefault();
                open(true);
                return;
            }
            if (list.hidden) return;
            const steps = {
                ArrowDown: () => choose(active + 1),
                ArrowUp: () => choose(active - 1),
                Enter: () => accept(items[active]),
                Tab: () => accept(items[active]),
                Escape: close,
            };
            if (steps[event.key]) {
                event.preventDefault();
                event.stopPropagation();
                steps[event.key]();
            }
        });
        area.addEventListener("blur", close);
        area.addEventListener("input", () => {
            if (OPENERS.test(area.value.slice(0, area.selectionEnd))) openSoon(false, ++newest);
            else close();
        });
        area.addEventListener("click", close);
        return close;
    };

    const watchEditor = (form) => {
        const area = form.querySelector("#id_expression");
        const panel = form.querySelector("[data-rs-answer]");
        const mirror = makeMirror(area, form.querySelector(".rs-marks"));
        const list = form.querySelector("#completions");
        const most = Number(form.dataset.most);
        const askCheck = asker(form, form.dataset.check);

        const check = async () => {
            const text = area.value;
            panel.setAttribute("aria-busy", "true");
            const answer = area.value.length > most * 10 ? { refused: 413 } : await askCheck();
            if (!answer || area.value !== text) return; // the next check is on its way
            panel.removeAttribute("aria-busy");
            if (answer.html !== undefined) {
                panel.innerHTML = answer.html; // rendered and escaped by our own server
                mirror.draw(answer.marks);
            } else if (answer.refused === 413 || answer.refused === 400) {
                tell(panel, `A rule has at most ${most} characters; this has ${area.value.length}.`);
            } else if (answer.refused === 403) {
                tell(panel, "You are logged out, or may not draft rules any more. Nothing is lost while this page is open.");
            } else {
                tell(panel, "The check did not answer. It is done again when you save.");
            }
        };
        const checkSoon = after(CHECK_AFTER, check);
        const changed = () => {
            mirror.draw([]);
            checkSoon();
        };

        area.setAttribute("role", "combobox");
        area.setAttribute("aria-autocomplete", "list");
        area.setAttribute("aria-haspopup", "listbox");
        area.setAttribute("aria-controls", list.id);
        area.setAttribute("aria-expanded", "false");
        makeCompletions(area, list, asker(form, form.dataset.complete), mirror, changed);
        form.addEventListener("input", changed);
        form.addEventListener("change", changed);

        panel.addEventListener("click", (event) => {
            const button = event.target.closest("button[name=mended]");
            if (!button) return;
            event.preventDefault();
            area.value = button.value;
            area.focus();
            changed();
        });
        for (const button of form.querySelectorAll("[data-rs-insert]")) {
            button.hidden = false;
            button.addEventListener("click", () => {
                const before = area.value.slice(0, area.selectionStart);
                const space = before && !/[\s(]$/.test(before) ? " " : "";
                area.setRangeText(space + button.dataset.rsInsert, area.selectionStart, area.selectionEnd, "end");
                area.focus();
                changed();
            });
        }
        watchChoices(form);
        watchParameters(form);
        changed();
    };

    /* What a choice makes meaningless is out of the way. */
    const watchChoices = (form) => {
        const [code, mode] = [form.elements.code, form.elements.mode];
        const show = () => {
            form.querySelector("[data-rs-expression]").hidden = code.value !== "";
            form.elements.share.closest(".bo-field").hidden = mode.value !== "share";
        };
        form.addEventListener("change", show);
        show();
    };

    const watchParameters = (form) => {
        const rows = form.querySelector("[data-rs-parameters]");
        const more = form.querySelector("[data-rs-more]");
        more.parentElement.hidden = false;
        more.addEventListener("click", () => {
            const row = rows.lastElementChild.cloneNode(true);
            const number = rows.children.length + 1;
            for (const control of row.querySelectorAll("input, select")) {
                control.setAttribute("aria-label", control.getAttribute("aria-label").replace(/\d+$/, number));
                if (control.matches("input")) control.value = "";
            }
            rows.append(row);
            row.querySelector("input").focus();
        });
    };

    document.addEventListener("DOMContentLoaded", () => {
        document.querySelectorAll("form[data-rs-editor]").forEach(watchEditor);
    });
})();
