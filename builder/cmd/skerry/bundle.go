package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/image"
	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
	"github.com/skerryos/skerry/initd/bundle"
)

// bundleCommand groups what is about signed bundles.
func bundleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bundle",
		Short: "Make and check signed bundles, by which devices are upgraded",
	}
	c.AddCommand(bundleCreateCommand(), bundleInspectCommand(), bundleVerifyCommand())
	return c
}

func bundleCreateCommand() *cobra.Command {
	var in inputs
	var output, key, passphrase string
	var o image.BundleOptions
	var addKeys []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "create [PROFILE]",
		Short: "Make the signed bundle of a profile for a board",
		Long: `Create builds what skerry build builds, and writes the bytes of a slot as one signed file, skerry-BOARD-VERSION.skb. The same
inputs and the same key give the same bytes. docs/bundle-format.md describes the format.

The bundle is signed with --key, else with the secret key whose text is in $` + signingKeyVariable + `, else with the development key if that is
what the image trusts. The image that it carries trusts the keys that skerry build would put into it; --trust names others. It lets in whom an image of skerry
build would, too: give the same --context or --no-remote.`,
		Example: `  skerry bundle create --key fleet --trust ~/.config/skerry/keys/fleet.pub
  skerry bundle create --key ./ci.key --floor 3 --file /srv/updates/edge.skb
  skerry bundle create --key old --trust new.pub --add-key new.pub --retire-key 0123456789ABCDEF`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				in.profile = args[0]
			}
			// Before all else: a wrong passphrase is known at once.
			s, err := signer(cmd.Context(), key, passphrase)
			if err != nil {
				return err
			}
			root, err := repository()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("output") {
				output = filepath.Join(root, "out")
			}
			p, err := in.resolveToBuild(cmd, root)
			if err != nil {
				return err
			}
			if s == nil {
				if s, err = developmentSigner(cmd.Context(), p); err != nil {
					return err
				}
			}
			o.Sign = s.Sign
			if !slices.ContainsFunc(p.Keys, func(k plan.TrustedKey) bool { return k.ID == s.ID }) {
				fmt.Fprintf(cmd.ErrOrStderr(), "skerry: note: the bundle is signed with key %s, which the image in it does not list: devices accept it only if they trust that key already\n", s.ID)
			}
			for _, file := range addKeys {
				k, err := readPublicKey(file)
				if err != nil {
					return err
				}
				o.Keys.Add = append(o.Keys.Add, k.String())
			}
			r, err := withBuilder(cmd, &in, p, root, output, func(b *artifact.Builder) (*image.BundleResult, error) {
				return image.Bundle(cmd.Context(), b, p, output, o)
			})
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s: %s of %s\n", short(r.Bundle), progress.Bytes(r.Bytes), progress.Bytes(r.Plain))
			return nil
		},
	}
	in.register(c)
	in.registerKeys(c, "trust")
	in.clients.register(c)
	f := c.Flags()
	f.StringVarP(&output, "output", "o", "", "folder of the outputs (default: out in the repository)")
	f.StringVar(&o.File, "file", "", "where to write the bundle (default: in the output folder)")
	f.StringVarP(&key, "key", "k", "", "signing key: a name of skerry keys, or a file (default: $"+signingKeyVariable+", then the development key)")
	f.StringVar(&passphrase, "passphrase-file", "", "file whose first line is the key's passphrase (default: $"+passphraseVariable+", then the terminal)")
	f.Uint64Var(&o.Floor, "floor", 0, "security floor: devices that have committed it refuse bundles with a lower one (default: update.floor of the profile)")
	f.StringArrayVar(&addKeys, "add-key", nil, "public key file that devices trust from this bundle on (repeatable)")
	f.StringArrayVar(&o.Keys.Retire, "retire-key", nil, "identifier of a key that devices never trust again (repeatable)")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// signingKeyVariable holds the text of a secret key, where there is no folder of keys.
const signingKeyVariable = "SKERRY_SIGNING_KEY"

// signer opens a signing key by its name in the user's store or by its file, or if none is named the key in the environment.
// It returns nil if there is neither.
func signer(ctx context.Context, key, passphraseFile string) (*keys.Signer, error) {
	passphrase := func() (string, error) { return askPassphrase(ctx, passphraseFile, false) }
	if key == "" {
		text := os.Getenv(signingKeyVariable)
		if text == "" {
			return nil, nil
		}
		return keys.Parse("in $"+signingKeyVariable, []byte(text), passphrase)
	}
	file := key
	if filepath.Base(key) == key {
		store, err := keys.Default()
		if err != nil {
			return nil, err
		}
		k, err := store.Get(key)
		_, noFile := os.Stat(key)
		switch {
		case errors.Is(err, fs.ErrNotExist) && noFile == nil: // a file of the working directory
		case err != nil:
			return nil, err
		case k.Secret == "":
			return nil, fmt.Errorf("cannot sign with key %s: its secret half is not in %s", key, store.Dir)
		default:
			file = k.Secret
		}
	}
	return keys.Open(file, passphrase)
}

// developmentSigner is the development key, for an image that trusts it.
func developmentSigner(ctx context.Context, p *plan.Plan) (*keys.Signer, error) {
	if !slices.ContainsFunc(p.Keys, func(k plan.TrustedKey) bool { return k.Development }) {
		return nil, fmt.Errorf("cannot sign the bundle: no key is named; nothing was built; give --key NAME, a name that `skerry keys list` shows, or set %s", signingKeyVariable)
	}
	return signer(ctx, keys.Development, "")
}

func readPublicKey(file string) (bundle.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return bundle.PublicKey{}, fmt.Errorf("cannot read the public key: %w", err)
	}
	k, err := bundle.ParsePublicKey(string(text))
	if err != nil {
		return k, fmt.Errorf("cannot read the public key %s: %w", file, err)
	}
	return k, nil
}

// described is what inspect and verify say of a bundle.
type described struct {
	Board        string            `json:"board"`
	Architecture string            `json:"architecture"`
	Version      string            `json:"version"`
	Floor        uint64            `json:"floor"`
	Created      time.Time         `json:"created"`
	Signer       string            `json:"signer"`
	Bytes        int64             `json:"bytes"`
	Chunks       int               `json:"chunks"`
	Artefacts    []bundle.Artefact `json:"-"`
	Keys         bundle.KeyChange  `json:"keys"`
}

func describe(r *bundle.Reader) described {
	m := r.Manifest()
	return described{m.Board, m.Architecture, m.Version, m.Floor, time.Unix(m.Created, 0).UTC(), r.Signer(), m.Size(), len(m.Chunks), m.Artefacts, m.Keys}
}

func (d described) print(w io.Writer) {
	fmt.Fprintf(w, "version   %s for %s (%s), of %s\nfloor     %d\nsigned by %s\nsize      %s in %d chunks\n",
		d.Version, d.Board, d.Architecture, d.Created.Format(time.RFC3339), d.Floor, d.Signer, progress.Bytes(d.Bytes), d.Chunks)
	for _, a := range d.Artefacts {
		fmt.Fprintf(w, "%-9s %s, sha256 %s\n", a.Name, progress.Bytes(a.Size), a.SHA256)
	}
	for _, k := range d.Keys.Add {
		fmt.Fprintf(w, "adds key  %s\n", k)
	}
	for _, id := range d.Keys.Retire {
		fmt.Fprintf(w, "retires   %s\n", id)
	}
}

func bundleInspectCommand() *cobra.Command {
	var asJSON bool
	var extract string
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a bundle says of itself",
		Long: `Inspect reads the head of a bundle and checks no signature. With --extract it writes manifest.json and manifest.json.minisig
into a folder, for the minisign tool: minisign -V -p fleet.pub -m manifest.json`,
		Example: `  skerry bundle inspect out/skerry-x86-64-0.1.0.skb --extract /tmp/look`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the bundle: %w", err)
			}
			defer f.Close()
			r, err := bundle.OpenUnverified(f)
			if err != nil {
				return err
			}
			if extract != "" {
				if err := extractSigned(r, extract); err != nil {
					return err
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(describe(r))
			}
			describe(r).print(cmd.OutOrStdout())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	c.Flags().StringVar(&extract, "extract", "", "folder to write the manifest and its signature to")
	return c
}

func extractSigned(r *bundle.Reader, dir string) error {
	manifest, signature := r.Signed()
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = errors.Join(
			os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644),
			os.WriteFile(filepath.Join(dir, "manifest.json.minisig"), signature, 0o644))
	}
	if err != nil {
		return fmt.Errorf("cannot extract the manifest: %w", err)
	}
	return nil
}

func bundleVerifyCommand() *cobra.Command {
	var trusted []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify FILE --key FILE.pub",
		Short: "Check a bundle as a device would, to its last byte",
		Long: `Verify checks the signature of a bundle with public keys, then the sum of every chunk and artefact, by the same code that
devices use. It writes nothing but the result.`,
		Example: `  skerry bundle verify out/skerry-x86-64-0.1.0.skb --key ~/.config/skerry/keys/fleet.pub`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []bundle.PublicKey
			for _, file := range trusted {
				k, err := readPublicKey(file)
				if err != nil {
					return err
				}
				list = append(list, k)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the bundle: %w", err)
			}
			defer f.Close()
			r, err := bundle.Open(f, list)
			if err != nil {
				return err
			}
			if err := bundle.Verify(r); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(describe(r))
			}
			describe(r).print(cmd.OutOrStdout())
			fmt.Fprintln(cmd.OutOrStdout(), "the bundle is whole and as it was signed")
			return nil
		},
	}
	c.Flags().StringArrayVarP(&trusted, "key", "k", nil, "public key file that the bundle may be signed with (repeatable)")
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	_ = c.MarkFlagRequired("key")
	return c
}
