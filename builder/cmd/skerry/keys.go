package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/vm"
)

// passphraseVariable holds the passphrase of signing keys where nobody can type it.
const passphraseVariable = "SKERRY_KEY_PASSPHRASE"

// keysCommand groups what is about signing keys.
func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, list and rotate the keys that bundles are signed with",
		Long: `Keys are pairs of files in the user's configuration folder (skerry/keys): NAME.key is secret, NAME.pub goes into images.
They are in the format of the minisign tool, which can check a bundle's signature without us.`,
	}
	c.AddCommand(keysNewCommand(), keysListCommand(), keysRotateCommand())
	return c
}

// newKey are the flags of commands that make a key.
type newKey struct {
	plain  bool
	file   string
	asJSON bool
}

func (n *newKey) register(c *cobra.Command) {
	c.Flags().BoolVar(&n.plain, "no-passphrase", false, "do not encrypt the secret half")
	c.Flags().StringVar(&n.file, "passphrase-file", "", "file whose first line is the passphrase")
	c.Flags().BoolVar(&n.asJSON, "json", false, "print the key as JSON")
	c.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file")
}

// make makes the key in the store.
func (n *newKey) make(ctx context.Context, store keys.Store, name string) (keys.Key, error) {
	passphrase := ""
	if !n.plain {
		var err error
		if passphrase, err = askPassphrase(ctx, n.file, true); err != nil {
			return keys.Key{}, err
		}
	}
	return store.New(name, passphrase)
}

func keysNewCommand() *cobra.Command {
	var n newKey
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a signing key",
		Long: `New makes an ed25519 key. The secret half is encrypted with a passphrase, which is asked for on the terminal, or taken from
$` + passphraseVariable + ` or a file. A key is never replaced.`,
		Example: `  skerry keys new fleet
  skerry keys new ci --no-passphrase`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := keys.Default()
			if err != nil {
				return err
			}
			k, err := n.make(cmd.Context(), store, args[0])
			if err != nil {
				return err
			}
			if n.asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(k)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "key %s (%s)\n  secret %s\n  public %s\n", k.Name, k.ID, k.Secret, k.Public)
			return nil
		},
	}
	n.register(c)
	return c
}

// keysRotateCommand makes the key that follows another. Devices learn of it by a bundle, so nothing changes for them yet.
func keysRotateCommand() *cobra.Command {
	var n newKey
	c := &cobra.Command{
		Use:   "rotate OLD NEW",
		Short: "Make the key that is to replace another, and say how devices learn of it",
		Long: `Rotate makes the key NEW and prints the command for a bundle that OLD signs, and that makes devices trust NEW and never OLD
again. Devices change over when they commit to that bundle: until all have, keep OLD.`,
		Example: `  skerry keys rotate fleet fleet-2027`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := keys.Default()
			if err != nil {
				return err
			}
			old, err := store.Get(args[0])
			if err != nil {
				return err
			}
			if old.Secret == "" {
				return fmt.Errorf("cannot rotate key %s: its secret half is not in %s, and nothing else can sign the bundle that tells devices; no key was made", old.Name, store.Dir)
			}
			k, err := n.make(cmd.Context(), store, args[1])
			if err != nil {
				return err
			}
			file := store.PublicFile(k.Name)
			command := vm.Shell([]string{"skerry", "bundle", "create", "--key", old.Name, "--trust", file, "--add-key", file, "--retire-key", old.ID})
			if n.asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
					Old     keys.Key `json:"old"`
					New     keys.Key `json:"new"`
					Command string   `json:"command"`
				}{old, k, command})
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "key %s (%s) is to replace %s (%s)\n", k.Name, k.ID, old.Name, old.ID)
			fmt.Fprintf(w, "Upgrade all devices to a bundle that makes the change:\n  %s\n", command)
			fmt.Fprintf(w, "From then on sign with %s. Keep %s until every device has committed to that bundle.\n", k.Name, old.Name)
			return nil
		},
	}
	n.register(c)
	return c
}

func keysListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the signing keys",
		Example: `  skerry keys list
  skerry keys list --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := keys.Default()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tID\tSECRET HALF")
			for _, k := range list {
				secret := "not here"
				switch {
				case k.Encrypted:
					secret = "encrypted"
				case k.Secret != "":
					secret = "not encrypted"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", k.Name, k.ID, secret)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return c
}

// askPassphrase takes the passphrase from a file, the environment, or a person, who types a new one twice.
func askPassphrase(ctx context.Context, file string, fresh bool) (string, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("cannot read the passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		return usable(strings.TrimSuffix(line, "\r"))
	}
	if word, ok := os.LookupEnv(passphraseVariable); ok {
		return usable(word)
	}
	stdin := int(os.Stdin.Fd())
	if !term.IsTerminal(stdin) {
		return "", fmt.Errorf("cannot ask for the passphrase: standard input is no terminal; set %s, or name a file with --passphrase-file", passphraseVariable)
	}
	word, err := typed(ctx, stdin, "Passphrase: ")
	if err != nil || !fresh {
		return word, err
	}
	again, err := typed(ctx, stdin, "The same again: ")
	if err == nil && again != word {
		err = errors.New("the two passphrases differ; nothing was made")
	}
	return word, err
}

func typed(ctx context.Context, terminal int, prompt string) (string, error) {
	state, err := term.GetState(terminal)
	if err != nil {
		return "", fmt.Errorf("cannot ask for the passphrase: %w", err)
	}
	fmt.Fprint(os.Stderr, prompt)
	word, err := answer(ctx, func() ([]byte, error) { return term.ReadPassword(terminal) })
	fmt.Fprintln(os.Stderr)
	if ctx.Err() != nil {
		_ = term.Restore(terminal, state) // the terminal would go on hiding what is typed
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the passphrase: %w", err)
	}
	return usable(string(word))
}

// answer is what a person types, or an error as soon as ctx is done: what reads goes on until the process ends.
func answer(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func usable(word string) (string, error) {
	if word == "" {
		return "", errors.New("the passphrase is empty; --no-passphrase makes a key without one")
	}
	return word, nil
}
