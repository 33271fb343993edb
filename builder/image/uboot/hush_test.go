package uboot

import (
	"fmt"
	"slices"
	"strings"
)

// A small interpreter of what our scripts use of U-Boot's shell: simple commands, variables, quotes, && and ||, if and for.
// It is strict: whatever it does not know is an error, not a guess.

// A word is made of pieces, some of which are names of variables.
type word []piece

type piece struct {
	text             string
	variable, quoted bool
}

// literal is the word if it has neither variables nor quotes.
func (w word) literal() string {
	if len(w) == 1 && !w[0].variable && !w[0].quoted {
		return w[0].text
	}
	return ""
}

// A token is a word or an operator: newline (also for a semicolon), && or ||.
type token struct {
	word word
	op   string
}

// tokens splits a script.
func tokens(script string) ([]token, error) {
	var out []token
	var w word
	quoted := false
	add := func(p piece) { w = append(w, p) }
	end := func() {
		if w != nil {
			out = append(out, token{word: w})
		}
		w = nil
	}
	for i := 0; i < len(script); i++ {
		rest := script[i:]
		switch c := script[i]; {
		case c == '"':
			quoted = !quoted
			add(piece{quoted: true}) // so that "" is a word
		case strings.HasPrefix(rest, "${"):
			name, _, closed := strings.Cut(rest[2:], "}")
			if !closed || name == "" {
				return nil, fmt.Errorf("no variable: %.20q", rest)
			}
			add(piece{name, true, quoted})
			i += len(name) + 2
		case strings.ContainsRune("\\'`$*?[](){}<&|", rune(c)) && !strings.HasPrefix(rest, "&&") && !strings.HasPrefix(rest, "||"):
			return nil, fmt.Errorf("the character %q has a meaning in U-Boot's shell, or none that is sure", c)
		case quoted && c != '\n':
			add(piece{string(c), false, true})
		case quoted:
			return nil, fmt.Errorf("a line ends within quotes")
		case c == '#' && w == nil:
			for i+1 < len(script) && script[i+1] != '\n' {
				i++
			}
		case c == ' ':
			end()
		case c == '\n' || c == ';':
			end()
			out = append(out, token{op: "\n"})
		case c == '&' || c == '|':
			end()
			out = append(out, token{op: rest[:2]})
			i++
		case len(w) > 0 && !w[len(w)-1].variable && !w[len(w)-1].quoted:
			w[len(w)-1].text += string(c)
		default:
			add(piece{text: string(c)})
		}
	}
	end()
	return out, nil
}

// A node is a command, or what is made of commands.
type node struct {
	kind string // list, "&&", "||", if, for, command
	// of list: all; of && and ||: two; of if: condition, then, else; of for: body
	nodes []node
	words []word // of a command; the items of a for
	name  string // the variable of a for
}

type parser struct {
	tokens []token
	at     int
}

func parse(script string) (node, error) {
	t, err := tokens(script)
	if err != nil {
		return node{}, err
	}
	p := &parser{tokens: t}
	n, err := p.list()
	if err == nil && p.at < len(p.tokens) {
		err = fmt.Errorf("%q has no beginning", p.reserved())
	}
	return n, err
}

var reservedWords = []string{"if", "then", "else", "fi", "for", "in", "do", "done"}

// reserved is the reserved word that comes next, "" if it is none.
func (p *parser) reserved() string {
	if p.at < len(p.tokens) {
		if w := p.tokens[p.at].word.literal(); slices.Contains(reservedWords, w) {
			return w
		}
	}
	return ""
}

func (p *parser) op() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at].op
	}
	return ""
}

func (p *parser) expect(reserved string) error {
	if p.reserved() != reserved {
		return fmt.Errorf("%q is missing", reserved)
	}
	p.at++
	return nil
}

// list reads up to a reserved word that ends it.
func (p *parser) list() (node, error) {
	l := node{kind: "list"}
	for p.at < len(p.tokens) {
		if p.op() == "\n" {
			p.at++
			continue
		}
		if r := p.reserved(); r != "" && r != "if" && r != "for" {
			break
		}
		n, err := p.chain()
		if err != nil {
			return l, err
		}
		l.nodes = append(l.nodes, n)
	}
	return l, nil
}

// chain reads commands that are joined by && and ||, from left to right.
func (p *parser) chain() (node, error) {
	n, err := p.command()
	for err == nil && (p.op() == "&&" || p.op() == "||") {
		kind := p.op()
		p.at++
		var right node
		right, err = p.command()
		n = node{kind: kind, nodes: []node{n, right}}
	}
	return n, err
}

func (p *parser) command() (n node, err error) {
	switch p.reserved() {
	case "if":
		return p.condition()
	case "for":
		return p.loop()
	case "":
	default:
		return n, fmt.Errorf("%q where a command must be", p.reserved())
	}
	n.kind = "command"
	for ; p.at < len(p.tokens) && p.op() == ""; p.at++ {
		n.words = append(n.words, p.tokens[p.at].word)
	}
	if len(n.words) == 0 {
		return n, fmt.Errorf("a command is missing")
	}
	return n, nil
}

func (p *parser) condition() (n node, err error) {
	n.kind = "if"
	for _, before := range []string{"if", "then", "else"} {
		if before == "else" && p.reserved() == "fi" {
			break
		}
		if err := p.expect(before); err != nil {
			return n, err
		}
		l, err := p.list()
		if err != nil {
			return n, err
		}
		n.nodes = append(n.nodes, l)
	}
	return n, p.expect("fi")
}

func (p *parser) loop() (n node, err error) {
	n.kind = "for"
	p.at++
	if p.at < len(p.tokens) {
		n.name = p.tokens[p.at].word.literal()
		p.at++
	}
	if err := p.expect("in"); err != nil {
		return n, err
	}
	for ; p.at < len(p.tokens) && p.op() == ""; p.at++ {
		n.words = append(n.words, p.tokens[p.at].word)
	}
	p.at++
	if err := p.expect("do"); err != nil {
		return n, err
	}
	l, err := p.list()
	if err != nil {
		return n, err
	}
	n.nodes = []node{l}
	return n, p.expect("done")
}
